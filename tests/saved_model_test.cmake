# SPDX-License-Identifier: MIT
# Two programs, one network: the second answers with the last digit of the first.
execute_process(COMMAND ${TRAIN} ${FILE} OUTPUT_VARIABLE trained COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${USE} ${FILE} OUTPUT_VARIABLE used COMMAND_ERROR_IS_FATAL ANY)
if(NOT trained STREQUAL used OR NOT used MATCHES "f_SD")
  message(FATAL_ERROR "trained: ${trained}used: ${used}")
endif()
file(WRITE ${FILE} "no network")
execute_process(COMMAND ${USE} ${FILE} RESULT_VARIABLE code ERROR_VARIABLE said)
if(NOT code EQUAL 1 OR NOT said MATCHES "load_parameters: .*of another kind")
  message(FATAL_ERROR "exit code ${code}: ${said}")
endif()
