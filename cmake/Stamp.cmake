# Writes OUT, a header that says from which commit the tree was built; touches it only where that has changed. Run by the
# build, not by the configuration, so that it stays true. Without git, or outside a checkout: "unknown".
execute_process(COMMAND git -C "${SOURCE}" describe --always --dirty --exclude * --abbrev=12
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed OR commit STREQUAL "")
  set(commit "unknown")
endif()
file(CONFIGURE OUTPUT "${OUT}" CONTENT "#define ALLOT_COMMIT \"${commit}\"\n")
