// For which driver branches the RM calls of rm_abi.h were compared with what NVIDIA publishes.
//
// Source: open-gpu-kernel-modules, every tag of each branch from `first` to `last`, in the headers
// that rm_abi.h names at each block (src/common/sdk/nvidia/inc: nvos.h, class/, ctrl/ctrla06c.h,
// ctrl/ctrl2080/ctrl2080fifo.h; src/nvidia/arch/nvalloc/unix/include). The closed kernel module
// takes the same calls. Who may make the controls: src/nvidia/generated/g_subdevice_nvoc.c and
// g_kernel_channel_group_api_nvoc.c, everybody (RMCTRL_FLAGS_NON_PRIVILEGED) in all of them.
// tools/rm_parity.py makes the comparison again from a clone of that repository.
#pragma once

#include <cstdint>
#include <string_view>

namespace allot::driver {

struct RmBranch {
  uint32_t branch;    // 580 of "580.105.08"
  const char* first;  // the tags that were read
  const char* last;
  uint32_t versions;  // how many
  bool as_ours;       // else the branch has other layouts than rm_abi.h
};

// Up to 530 NVOS64_PARAMETERS has no flags (40 bytes, status at 36) and NVOS21_PARAMETERS no
// paramsSize. All others agree in every layout and number that allot uses; of those that it only
// declares, NVA06C_CTRL_GPFIFO_SCHEDULE_PARAMS has two bytes before 575 and three from there on.
inline constexpr RmBranch kRmBranches[] = {
    {515, "515.43.04", "515.105.01", 17, false},
    {520, "520.56.06", "520.61.07", 3, false},
    {525, "525.47.04", "525.147.05", 27, false},
    {530, "530.30.02", "530.41.03", 2, false},
    {535, "535.43.02", "535.288.01", 38, true},
    {545, "545.23.06", "545.29.06", 5, true},
    {550, "550.40.07", "550.163.01", 34, true},
    {555, "555.42.02", "555.58.02", 5, true},
    {560, "560.28.03", "560.35.03", 3, true},
    {565, "565.57.01", "565.77", 2, true},
    {570, "570.86.15", "570.211.01", 25, true},
    {575, "575.51.02", "575.64.05", 6, true},
    {580, "580.65.06", "580.142", 21, true},
    {590, "590.44.01", "590.48.01", 2, true},
    {595, "595.44.02", "595.45.04", 3, true},
};

// The branch of a driver version as NVML writes it ("580.159.04"); 0 if it does not begin so.
constexpr uint32_t rm_branch_number(std::string_view version) {
  uint32_t number = 0;
  size_t digits = 0;
  while (digits < version.size() && version[digits] >= '0' && version[digits] <= '9') {
    if (digits == 6) return 0;
    number = number * 10 + static_cast<uint32_t>(version[digits++] - '0');
  }
  const bool ends = digits == version.size() || version[digits] == '.';
  return digits > 0 && ends ? number : 0;
}

// Null: nobody has compared that branch.
constexpr const RmBranch* find_rm_branch(std::string_view version) {
  const uint32_t number = rm_branch_number(version);
  for (const RmBranch& branch : kRmBranches) {
    if (branch.branch == number) return &branch;
  }
  return nullptr;
}

}  // namespace allot::driver
