# What `cmake --install` (./dev install) puts where. DESTDIR and --prefix hold; components: allot, sim.
#
# The private libraries are always in <prefix>/lib, also where the system's own are in lib64 or lib/<triplet>: the
# command finds them in ../lib beside itself, installed and in the build folder, and an installation may be moved.
include(GNUInstallDirs)
set(ALLOT_BASH_DIR ${CMAKE_INSTALL_DATADIR}/bash-completion/completions CACHE STRING "bash completions")
set(ALLOT_ZSH_DIR ${CMAKE_INSTALL_DATADIR}/zsh/site-functions CACHE STRING "zsh completions")
set(ALLOT_FISH_DIR ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d CACHE STRING "fish completions")

if(NOT TARGET allot)
  return()
endif()
install(TARGETS allot RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT allot)
function(allot_install_library target folder component)
  if(NOT TARGET ${target})
    return()
  endif()
  install(TARGETS ${target} LIBRARY DESTINATION lib/${folder} COMPONENT ${component})
endfunction()
allot_install_library(allot_shim_cuda allot allot)
allot_install_library(allot_shim_nvml allot allot)
allot_install_library(allot_sim_cuda allot-sim sim)
allot_install_library(allot_sim_nvml allot-sim sim)
if(TARGET allot_shim_cuda)  # the names without ".1", which some programs load
  install(FILES ${CMAKE_BINARY_DIR}/lib/allot/libcuda.so ${CMAKE_BINARY_DIR}/lib/allot/libnvidia-ml.so
          DESTINATION lib/allot COMPONENT allot)
endif()

# systemd reads those of /usr and of /usr/local.
install(FILES system/allot.tmpfiles DESTINATION lib/tmpfiles.d RENAME allot.conf COMPONENT allot)
install(FILES system/allot-sim.tmpfiles DESTINATION lib/tmpfiles.d RENAME allot-sim.conf COMPONENT sim)

install(FILES LICENSE README.md SECURITY.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT allot)
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT allot)
install(FILES sim/README.md DESTINATION ${CMAKE_INSTALL_DOCDIR}/sim COMPONENT sim)
if(TARGET allot_manual)
  install(DIRECTORY ${CMAKE_BINARY_DIR}/share/allot/man1 ${CMAKE_BINARY_DIR}/share/allot/man5 DESTINATION ${CMAKE_INSTALL_MANDIR} COMPONENT allot)
  set(allot_completions ${CMAKE_BINARY_DIR}/share/allot/completions)
  install(FILES ${allot_completions}/allot.bash DESTINATION ${ALLOT_BASH_DIR} RENAME allot COMPONENT allot)
  install(FILES ${allot_completions}/_allot DESTINATION ${ALLOT_ZSH_DIR} COMPONENT allot)
  install(FILES ${allot_completions}/allot.fish DESTINATION ${ALLOT_FISH_DIR} COMPONENT allot)
endif()
