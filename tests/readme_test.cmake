# SPDX-License-Identifier: MIT
# Fails unless the README's first ```cpp block is the file SOURCE (its licence line may be left out),
# the next block of any kind is what PROGRAM prints, and the next ```cpp block is a part of LAYER.
#   cmake -D README=... -D SOURCE=... -D PROGRAM=... -D LAYER=... -P readme_test.cmake
foreach(file IN ITEMS ${README} ${SOURCE} ${PROGRAM} ${LAYER})
  if(NOT EXISTS ${file})
    message(FATAL_ERROR "${file} does not exist")
  endif()
endforeach()

# Sets `var` to the block that `opening` starts in `text`, and `text` to what follows it.
function(take_block opening var)
  string(FIND "${text}" "\n${opening}" at)
  if(at LESS 0)
    message(FATAL_ERROR "README.md: no block that opens with ${opening}")
  endif()
  math(EXPR at "${at} + 1")
  string(SUBSTRING "${text}" ${at} -1 text)
  string(FIND "${text}" "\n" first)
  math(EXPR first "${first} + 1")
  string(SUBSTRING "${text}" ${first} -1 text)
  string(FIND "${text}" "```\n" last)
  if(last LESS 0)
    message(FATAL_ERROR "README.md: the block that opens with ${opening} is not closed")
  endif()
  string(SUBSTRING "${text}" 0 ${last} block)
  math(EXPR last "${last} + 3")
  string(SUBSTRING "${text}" ${last} -1 text)
  set(${var} "${block}" PARENT_SCOPE)
  set(text "${text}" PARENT_SCOPE)
endfunction()

function(require_equal what shown actual)
  if(NOT shown STREQUAL actual)
    message(FATAL_ERROR "README.md: its ${what} differs.\n"
                        "--- README.md\n${shown}--- ${what}\n${actual}---")
  endif()
endfunction()

file(READ ${README} text)
take_block("```cpp\n" shown_source)
take_block("```" shown_output)
take_block("```cpp\n" shown_layer)

file(READ ${SOURCE} source)
if(NOT shown_source MATCHES "^// SPDX-")
  string(REGEX REPLACE "^// SPDX-[^\n]*\n" "" source "${source}")
endif()
require_equal("examples/quickstart.cpp" "${shown_source}" "${source}")

execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
require_equal("output of quickstart" "${shown_output}" "${output}")

string(REGEX MATCHALL "\n" lines "${source}")
list(LENGTH lines count)
if(count GREATER 30)
  message(FATAL_ERROR "examples/quickstart.cpp: at most 30 lines, got ${count}")
endif()

file(READ ${LAYER} layer)
string(FIND "${layer}" "\n${shown_layer}" at)
if(at LESS 0)
  message(FATAL_ERROR "README.md: its second program is no part of ${LAYER}.\n${shown_layer}")
endif()
