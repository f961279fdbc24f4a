# SPDX-License-Identifier: MIT
# Compiles and links PROGRAM and BASELINE by turns with -O2, without -march=native and with it: wider
# registers mean more kernels to compile. Prints the median time of each, and for both targets the
# ratio beside the bound that it should keep, 2. Compilers that refuse -march=native skip it.
#   cmake -D COMPILER=... -D INCLUDES=... -D SYSTEM_INCLUDES=... -D PROGRAM=... -D BASELINE=...
#         -P compile_time_report.cmake
set(turns 3)
set(bound 200) # hundredths

set(common_flags -std=c++20 -O2 -pthread)
foreach(directory IN LISTS INCLUDES)
  list(APPEND common_flags -I${directory})
endforeach()
foreach(directory IN LISTS SYSTEM_INCLUDES)
  list(APPEND common_flags -isystem ${directory})
endforeach()

# Sets `var` to the milliseconds that `source` takes with further flags.
function(time_compilation source flags var)
  set(binary ${CMAKE_CURRENT_BINARY_DIR}/compile_time_report.out)
  string(TIMESTAMP start "%s%f")
  execute_process(COMMAND ${COMPILER} ${common_flags} ${flags} ${source} -o ${binary}
                  COMMAND_ERROR_IS_FATAL ANY)
  string(TIMESTAMP end "%s%f")
  file(REMOVE ${binary})
  math(EXPR milliseconds "(${end} - ${start}) / 1000")
  set(${var} ${milliseconds} PARENT_SCOPE)
endfunction()

# Times both programs with further flags and prints what came of it.
function(report title flags)
  message("${title}")
  time_compilation(${BASELINE} "${flags}" ignored) # fills the file cache
  foreach(turn RANGE 1 ${turns})
    foreach(what IN ITEMS PROGRAM BASELINE)
      time_compilation(${${what}} "${flags}" milliseconds)
      list(APPEND ${what}_times ${milliseconds})
    endforeach()
  endforeach()
  math(EXPR middle "${turns} / 2")
  foreach(what IN ITEMS PROGRAM BASELINE)
    list(SORT ${what}_times COMPARE NATURAL)
    list(GET ${what}_times ${middle} ${what}_median)
    cmake_path(GET ${what} FILENAME name)
    message("  ${name}: ${${what}_median} ms (median of ${turns}; all: ${${what}_times})")
  endforeach()
  math(EXPR ratio "100 * ${PROGRAM_median} / ${BASELINE_median}")
  math(EXPR whole "${ratio} / 100")
  math(EXPR tenths "${ratio} / 10 % 10")
  math(EXPR hundredths "${ratio} % 10")
  set(verdict "")
  if(ratio GREATER bound)
    set(verdict ", MISSED")
  endif()
  message("  ratio: ${whole}.${tenths}${hundredths} (target 2.00${verdict})")
endfunction()

report("without -march=native" "")
execute_process(COMMAND ${COMPILER} -march=native -E -x c++ /dev/null RESULT_VARIABLE refused
                OUTPUT_QUIET ERROR_QUIET)
if(refused)
  message("with -march=native: the compiler has no such flag")
else()
  report("with -march=native" -march=native)
endif()
