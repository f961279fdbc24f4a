# SPDX-License-Identifier: MIT
# Builds and runs the consumer project from nothing, against a fresh install where it needs one.
#   cmake -D USE=... -D SOURCE_DIR=... -D BUILD_DIR=... -D WORK_DIR=... -D GENERATOR=... -D COMPILER=...
#         -D MAKE_PROGRAM=... -D EIGEN_DIR=... -D VERSION=... -D NEXT_MINOR_VERSION=... -P run.cmake
file(REMOVE_RECURSE ${WORK_DIR})
set(prefix ${WORK_DIR}/prefix)

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

if(USE STREQUAL "find_package")
  run(${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${prefix})
  foreach(file IN ITEMS all.hpp version.hpp io/gzip.hpp)
    if(EXISTS ${SOURCE_DIR}/include/stochastic_depth/${file}
       AND NOT EXISTS ${prefix}/include/stochastic_depth/${file})
      message(FATAL_ERROR "${file} was not installed")
    endif()
  endforeach()
endif()
run(${CMAKE_COMMAND}
    -S ${CMAKE_CURRENT_LIST_DIR}
    -B ${WORK_DIR}/build
    -G ${GENERATOR}
    -D CMAKE_MAKE_PROGRAM=${MAKE_PROGRAM}
    -D CMAKE_CXX_COMPILER=${COMPILER}
    -D CMAKE_PREFIX_PATH=${prefix}
    -D Eigen3_DIR=${EIGEN_DIR}
    -D STOCHASTIC_DEPTH_SOURCE_DIR=${SOURCE_DIR}
    -D USE=${USE}
    -D VERSION=${VERSION}
    -D NEXT_MINOR_VERSION=${NEXT_MINOR_VERSION})
run(${CMAKE_COMMAND} --build ${WORK_DIR}/build)
run(${WORK_DIR}/build/consumer)
