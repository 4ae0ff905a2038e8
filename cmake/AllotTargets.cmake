# Two kinds of target, after what the code may assume.
#
# guest   runs inside a user's process: no exceptions, no RTTI, no libstdc++ symbol, hidden symbols.
# hosted  our own programs, the software GPU and tests: the full standard library.
#
#   allot_guest_library(NAME SOURCES a.cc ... LINKS allot_base ...)     static, position independent
#   allot_hosted_library(NAME SOURCES ... LINKS ...)
#   allot_test(NAME SOURCES ... LINKS ... [LABELS unit] [COMPUTES|PARTS])   a GoogleTest program, in ctest
#   allot_test_waits(NAME SECONDS)   a test that mostly waits, and about how long it takes
#   allot_quick_build(NAME)   code that waits and prints, made of templates: not optimised under sanitizers,
#                             where that doubles the compile time.
#   allot_quick_test(NAME)    a test's own code: never optimised, for the same reason; what it tests is. For tests
#                             but those that COMPUTE, and those that compile PARTS of the product.
find_package(Threads REQUIRED)

add_library(allot_flags INTERFACE)
target_include_directories(allot_flags INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/src)
target_compile_options(allot_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow $<$<COMPILE_LANGUAGE:CXX>:-Wconversion -Wno-sign-conversion>
  # GCC 12 takes std::variant's moves for reads of uninitialised alternatives.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
  $<$<BOOL:${ALLOT_WERROR}>:-Werror> -fno-omit-frame-pointer)
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
  # The account word is 16 bytes wide and changed by one compare-and-swap (cmpxchg16b).
  target_compile_options(allot_flags INTERFACE -mcx16)
endif()
if(ALLOT_SANITIZE)
  target_compile_options(allot_flags INTERFACE -fsanitize=${ALLOT_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(allot_flags INTERFACE -fsanitize=${ALLOT_SANITIZE})
endif()

add_library(allot_guest_flags INTERFACE)
target_link_libraries(allot_guest_flags INTERFACE allot_flags)
target_compile_options(allot_guest_flags INTERFACE
  -fvisibility=hidden $<$<COMPILE_LANGUAGE:CXX>:-fno-exceptions -fno-rtti -fvisibility-inlines-hidden>)

function(allot_guest_library name)
  cmake_parse_arguments(A "" "" "SOURCES;LINKS" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES})
  set_target_properties(${name} PROPERTIES UNITY_BUILD OFF)  # small files with small headers
  target_link_libraries(${name} PUBLIC ${A_LINKS} PRIVATE allot_guest_flags INTERFACE allot_flags)
endfunction()

# ./dev runs two tests' worth of `PROCESSORS` on each CPU: whole processes mostly wait, for each other or for the
# software GPU's time, and take one; tests that compute take two. The longest begin first.
function(allot_test_waits name seconds)
  if(TEST ${name})
    set_tests_properties(${name} PROPERTIES PROCESSORS 1 COST ${seconds})
  endif()
endfunction()

function(allot_hosted_library name)
  cmake_parse_arguments(A "" "" "SOURCES;LINKS" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES})
  target_link_libraries(${name} PUBLIC allot_flags ${A_LINKS})
endfunction()

function(allot_quick_build name)
  if(ALLOT_SANITIZE)
    target_compile_options(${name} PRIVATE -O0)
  endif()
endfunction()

function(allot_quick_test name)
  target_compile_options(${name} PRIVATE -O0)
endfunction()

function(allot_test name)
  if(NOT ALLOT_TESTS)
    return()
  endif()
  cmake_parse_arguments(A "COMPUTES;PARTS" "" "SOURCES;LINKS;LABELS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/test)
  target_link_libraries(${name} PRIVATE allot_flags ${A_LINKS} GTest::gtest GTest::gtest_main
                        Threads::Threads)
  if(A_PARTS)
    allot_quick_build(${name})
  elseif(NOT A_COMPUTES)
    allot_quick_test(${name})
  endif()
  if(NOT A_LABELS)
    set(A_LABELS unit)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${A_LABELS}" TIMEOUT 300)
  if(A_LABELS STREQUAL "unit")
    set_tests_properties(${name} PROPERTIES PROCESSORS 2)
  endif()
endfunction()
