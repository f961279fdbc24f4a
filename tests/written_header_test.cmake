# SPDX-License-Identifier: MIT
# Two programs, one network: the second was compiled from what the first writes, and answers to the
# last bit as it does.
execute_process(COMMAND ${WRITE} ${FILE} OUTPUT_VARIABLE wrote COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${USE} OUTPUT_VARIABLE used COMMAND_ERROR_IS_FATAL ANY)
if(NOT wrote STREQUAL used OR NOT used MATCHES "sine\\(0.5\\) = ")
  message(FATAL_ERROR "wrote: ${wrote}used: ${used}")
endif()
execute_process(COMMAND ${WRITE} ${FILE}/sine.hpp RESULT_VARIABLE code ERROR_VARIABLE said)
if(NOT code EQUAL 1 OR NOT said MATCHES "write_header: .*cannot create the file")
  message(FATAL_ERROR "exit code ${code}: ${said}")
endif()
