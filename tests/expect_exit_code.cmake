# SPDX-License-Identifier: MIT
# Fails unless COMMAND, a list, exits with CODE; a failing command must say why in one line.
#   cmake -D CODE=... -D COMMAND=... [-D INPUT=...] -P expect_exit_code.cmake
if(DEFINED INPUT)
  set(input INPUT_FILE ${INPUT})
endif()
execute_process(
  COMMAND ${COMMAND} ${input}
  RESULT_VARIABLE code
  OUTPUT_VARIABLE output
  ERROR_VARIABLE error)
message("exit code ${code}\n${output}${error}")
if(NOT code EQUAL CODE)
  message(FATAL_ERROR "Expected exit code ${CODE}, got ${code}")
endif()
if(NOT CODE EQUAL 0 AND NOT error MATCHES "^[^\n]+\n$")
  message(FATAL_ERROR "Expected one line on standard error")
endif()
