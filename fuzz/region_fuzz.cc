// Slice files of any content.
//
// The input is a list of changes to a good file: area (1 byte), offset (2 bytes), length (1 byte),
// the bytes. So the fuzzer spends its time behind the header's checks and not before them; area 0
// is the header itself. A last odd rest cuts the file to that many pages.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "shm/slice_file.h"
#include "shm/test_hostile.h"
#include "shm/time_view.h"

namespace {

using namespace allot::shm;

std::string make_folder() {
  char text[] = "/dev/shm/allot-fuzz-XXXXXX";
  if (mkdtemp(text) == nullptr) std::abort();
  return text;
}

struct Place {
  std::string folder = make_folder();
  std::string path = folder + "/t.slice";
  ~Place() {
    unlink(path.c_str());
    rmdir(folder.c_str());
  }
};

constexpr size_t kAreas[] = {
    offsetof(AllotSliceFile, header),     offsetof(AllotSliceFile, gpus),
    offsetof(AllotSliceFile, slot_words), offsetof(AllotSliceFile, slots),
    offsetof(AllotSliceFile, exports),    offsetof(AllotSliceFile, clients)};

// Applies the changes; returns the size that the file is to have.
size_t change(uint8_t* file, const uint8_t* data, size_t size) {
  while (size > 4) {
    const size_t area = data[0] >= 240 ? offsetof(AllotSliceFile, swaps) : kAreas[data[0] % 6];
    const size_t offset = area + (data[1] | static_cast<size_t>(data[2]) << 8);
    size_t length = data[3] % 64 + 1u;
    data += 4;
    size -= 4;
    if (length > size) length = size;
    if (offset + length <= sizeof(AllotSliceFile)) std::memcpy(file + offset, data, length);
    data += length;
    size -= length;
  }
  return size == 3 ? (data[0] | static_cast<size_t>(data[1]) << 8) * 512 : sizeof(AllotSliceFile);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static Place place;
  unlink(place.path.c_str());
  auto made = create_slice(place.folder.c_str(), NewSlice{"t", 0, 0, 0, 0});
  if (!made) std::abort();
  const size_t bytes = change(reinterpret_cast<uint8_t*>(made->file), data, size);
  unmap(*made);
  if (bytes != sizeof(AllotSliceFile) &&
      truncate(place.path.c_str(), static_cast<off_t>(bytes)) != 0) {
    std::abort();
  }
  static TimeView view;  // what the agents of other slices read
  static_cast<void>(read_time_view(place.path.c_str(), &view));
  notify_other(place.path.c_str());
  if (auto joined = join_slice(place.path.c_str())) {
    static_cast<void>(take_client(joined->slice, joined->slot, data[0] % ALLOT_MAX_GPUS));
    unmap(joined->slice);
  }
  handle_hostile(place.folder.c_str(), place.path.c_str(), "t");
  return 0;
}
