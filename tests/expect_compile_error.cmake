# SPDX-License-Identifier: MIT
# Fails unless compiling SOURCE fails, and the compiler's output matches the regular expression that
# the first line of SOURCE asks for: // EXPECT: regex
#   cmake -D COMPILER=... -D INCLUDES=... -D SOURCE=... -P expect_compile_error.cmake
file(STRINGS ${SOURCE} first_line LIMIT_COUNT 1 ENCODING UTF-8)
if(NOT first_line MATCHES "^// EXPECT: (.+)$")
  message(FATAL_ERROR "${SOURCE} must begin with // EXPECT: regex")
endif()
set(expected "${CMAKE_MATCH_1}")
list(TRANSFORM INCLUDES PREPEND -isystem)
execute_process(
  COMMAND ${COMPILER} -std=c++20 -fsyntax-only ${INCLUDES} ${SOURCE}
  RESULT_VARIABLE code
  OUTPUT_VARIABLE output
  ERROR_VARIABLE error)
message("exit code ${code}\n${output}${error}")
if(code EQUAL 0)
  message(FATAL_ERROR "${SOURCE} compiles, and must not")
endif()
if(NOT "${output}${error}" MATCHES "${expected}")
  message(FATAL_ERROR "Nothing in the compiler's output matches: ${expected}")
endif()
