# Files made from the tables of driver entries by tools/gen_driver.py.
#
#   allot_generate_tables(TARGET)        makes driver/{cuda,nvml}_{entries,table,shapes}.inc for a target and
#                                        whoever links it
#   allot_generate_stubs(TARGET PREFIX cuda|nvml [EXTRA ioctl dlopen ...])
#                                        adds the jump stubs to a shared library and lets it export
#                                        exactly the table and the extra names. The library must define
#                                        extern "C" void* allot_<prefix>_resolve_entry(unsigned index)
#                                        and may store into extern "C" void* allot_<prefix>_slots[].
#   allot_generate_exports(TARGET PREFIX cuda|nvml [EXTRA names])
#                                        only the export script, for a library that defines the entries
find_package(Python3 REQUIRED COMPONENTS Interpreter)

set(ALLOT_DRIVER_TABLES ${CMAKE_SOURCE_DIR}/src/driver)
set(ALLOT_GEN_DRIVER ${CMAKE_SOURCE_DIR}/tools/gen_driver.py)

function(_allot_generate what api output)
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${Python3_EXECUTABLE} ${ALLOT_GEN_DRIVER} ${what} --api ${api}
            --table ${ALLOT_DRIVER_TABLES}/${api}_entries.txt --output ${output} --extra ${ARGN}
    DEPENDS ${ALLOT_GEN_DRIVER} ${ALLOT_DRIVER_TABLES}/${api}_entries.txt
    COMMENT "Generating ${api} ${what}"
    VERBATIM)
endfunction()

function(allot_generate_tables target)
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/generated)
  set(files "")
  foreach(api cuda nvml)
    _allot_generate(inc ${api} ${folder}/driver/${api}_entries.inc)
    _allot_generate(table ${api} ${folder}/driver/${api}_table.inc)
    _allot_generate(shapes ${api} ${folder}/driver/${api}_shapes.inc)
    list(APPEND files ${folder}/driver/${api}_entries.inc ${folder}/driver/${api}_table.inc
         ${folder}/driver/${api}_shapes.inc)
  endforeach()
  # A header that others include: a target of its own, so that they wait for it.
  add_custom_target(${target}_tables DEPENDS ${files})
  add_dependencies(${target} ${target}_tables)
  target_include_directories(${target} PUBLIC ${folder})
endfunction()

function(allot_generate_exports target)
  cmake_parse_arguments(A "" "PREFIX" "EXTRA" ${ARGN})
  set(script ${CMAKE_CURRENT_BINARY_DIR}/${target}_exports.map)
  _allot_generate(exports ${A_PREFIX} ${script} ${A_EXTRA})
  add_custom_target(${target}_export_script DEPENDS ${script})
  add_dependencies(${target} ${target}_export_script)
  target_link_options(${target} PRIVATE -Wl,--version-script=${script})
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${script})
endfunction()

function(allot_generate_stubs target)
  cmake_parse_arguments(A "" "PREFIX" "EXTRA" ${ARGN})
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
    message(FATAL_ERROR "allot's jump stubs are written for x86-64 only; this is ${CMAKE_SYSTEM_PROCESSOR}")
  endif()
  set(stubs ${CMAKE_CURRENT_BINARY_DIR}/${target}_stubs.S)
  _allot_generate(stubs ${A_PREFIX} ${stubs})
  target_sources(${target} PRIVATE ${stubs})
  allot_generate_exports(${target} PREFIX ${A_PREFIX} EXTRA ${A_EXTRA})
endfunction()
