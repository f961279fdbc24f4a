# SPDX-License-Identifier: MIT
# What PROGRAM prints as a description to start from, it reads.
#   cmake -D PROGRAM=... -D FOLDER=... -P template_test.cmake
foreach(kind IN ITEMS dense resnet transformer)
  set(file ${FOLDER}/template_${kind}.json)
  execute_process(COMMAND ${PROGRAM} --template ${kind} OUTPUT_FILE ${file}
                  COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${PROGRAM} ${file} --describe OUTPUT_VARIABLE layers
                  COMMAND_ERROR_IS_FATAL ANY)
  if(NOT layers MATCHES "StochasticDepth, survival probability 0.5\n")
    message(FATAL_ERROR "${kind}: ${layers}")
  endif()
endforeach()
