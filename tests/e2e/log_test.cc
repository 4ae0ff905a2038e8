// Deeds are logged: to a journal's socket with fields, else to syslog; `allot log` shows them.
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>

#include "tests/e2e/machine.h"

namespace allot::e2e {
namespace {

using Words = std::vector<std::string>;
using Entry = std::map<std::string, std::string>;

// A datagram socket as journald's, or as /dev/log.
class Socket {
 public:
  explicit Socket(const std::string& path) : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0) << path;
    chmod(path.c_str(), 0666);
  }
  ~Socket() { close(fd_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  // The next datagram; empty when none is there in time.
  std::string next(int ms) {
    pollfd wait = {fd_, POLLIN, 0};
    if (poll(&wait, 1, ms) <= 0) return "";
    char bytes[65536];
    const ssize_t n = recv(fd_, bytes, sizeof bytes, 0);
    return n > 0 ? std::string(bytes, static_cast<size_t>(n)) : "";
  }
  // All that have come; each field must be a line.
  std::vector<Entry> entries() {
    std::vector<Entry> out;
    for (std::string text; !(text = next(out.empty() ? 2000 : 100)).empty();) {
      Entry entry;
      std::istringstream lines(text);
      for (std::string line; std::getline(lines, line);) {
        const size_t equals = line.find('=');
        EXPECT_NE(equals, std::string::npos) << line;
        if (equals != std::string::npos) entry[line.substr(0, equals)] = line.substr(equals + 1);
      }
      out.push_back(entry);
    }
    return out;
  }

 private:
  int fd_;
};

class Log : public Machine {
 protected:
  std::string socket_path() const { return folder() + "/journal"; }
  void use_journal() { environment["ALLOT_JOURNAL"] = socket_path(); }
  static std::string deeds_of(const std::vector<Entry>& entries) {
    std::string out;
    for (const Entry& entry : entries)
      out += entry.at("ALLOT_DEED") + ":" + entry.at("ALLOT_RESULT") + " ";
    return out;
  }
};

TEST_F(Log, DeedsGoToTheJournalWithFields) {
  Socket journal(socket_path());
  use_journal();
  const auto program = start_gpu_program({"--name", "a", "--gpu-mem", "2G"});
  ASSERT_EQ(ask(*program, "alloc 1048576"), "ok");
  for (const Words& words : {Words{"set", "a", "--gpu-mem", "3G"}, Words{"freeze", "a"},
                             Words{"thaw", "a"}, Words{"evict", "a"}, Words{"restore", "a"}})
    EXPECT_EQ(allot(words).status, 0) << words[0];
  const std::vector<Entry> entries = journal.entries();
  EXPECT_EQ(deeds_of(entries), "run:done set:done freeze:done thaw:done evict:done restore:done ");
  for (const Entry& entry : entries) {
    EXPECT_EQ(entry.at("ALLOT_SLICE"), "a");
    EXPECT_EQ(entry.at("SYSLOG_IDENTIFIER"), "allot");
    EXPECT_EQ(entry.at("PRIORITY"), "5");
    EXPECT_EQ(entry.at("MESSAGE_ID").size(), 32u);
    EXPECT_EQ(entry.at("MESSAGE"), "a: " + entry.at("ALLOT_DEED") + ": " + entry.at("ALLOT_TEXT"));
  }
  EXPECT_NE(entries[0].at("ALLOT_TEXT").find("GPU 0: 2 GiB"), std::string::npos);
  EXPECT_NE(entries[1].at("ALLOT_TEXT").find("2 GiB -> 3 GiB"), std::string::npos);
  EXPECT_EQ(allot({"stop", "a"}).status, 0);
  program->wait();
  const std::vector<Entry> last = journal.entries();
  ASSERT_EQ(last.size(), 2u) << deeds_of(last);
  const Entry& end = last[0].at("ALLOT_DEED") == "end" ? last[0] : last[1];
  EXPECT_EQ(end.at("ALLOT_STATUS"), "143");
  EXPECT_EQ(end.at("ALLOT_EVICTIONS"), "1");
  for (const char* field : {"ALLOT_GPU_SECONDS", "ALLOT_THROTTLED_SECONDS", "ALLOT_FROZEN_SECONDS",
                            "ALLOT_REFUSED", "ALLOT_PEAK_BYTES"})
    EXPECT_TRUE(end.contains(field)) << field;
}

TEST_F(Log, RefusalsAreLoggedAndMistakesAtTheKeyboardAreNot) {
  Socket journal(socket_path());
  use_journal();
  allot({"freeze", "nobody"});                                      // no such slice
  allot({"set", "a"});                                              // wrong usage
  allot({"run", "--sim", "--name", "x", "--", "no-such-program"});  // 127
  const Outcome refused = allot({"run", "--sim", "--name", "x", "--gpu-mem", "500G", "--", "true"});
  EXPECT_EQ(refused.status, 125);
  const std::vector<Entry> entries = journal.entries();
  ASSERT_EQ(deeds_of(entries), "run:refused ");
  EXPECT_EQ(entries[0].at("PRIORITY"), "4");
  EXPECT_NE(entries[0].at("ALLOT_TEXT").find("500 GiB is more than GPU 0 has"), std::string::npos);
}

TEST_F(Log, MemoryThatProgramsAreRefusedIsLoggedByTheLauncher) {
  Socket journal(socket_path());
  use_journal();
  const auto program = start_gpu_program({"--name", "a", "--gpu-mem", "1G"});
  EXPECT_EQ(ask(*program, "alloc 8589934592"), "2");
  std::vector<Entry> entries = journal.entries();
  EXPECT_EQ(deeds_of(entries), "run:done allocate:refused ");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask(*program, "alloc 8589934592"), "2");
  program->write("exit 0\n");
  EXPECT_EQ(program->wait(), 0);
  entries = journal.entries();
  ASSERT_EQ(deeds_of(entries), "allocate:refused end:done ") << "the rest together";
  EXPECT_EQ(entries[0].at("ALLOT_REFUSED"), "4");
  EXPECT_EQ(entries[1].at("ALLOT_REFUSED"), "4");
}

TEST_F(Log, SlicesOfCpusAloneAreLoggedToo) {
  Socket journal(socket_path());
  use_journal();
  EXPECT_EQ(allot({"run", "--cpus", "1", "--name", "c", "--", "sh", "-c", "exit 3"}).status, 3);
  const std::vector<Entry> entries = journal.entries();
  ASSERT_EQ(deeds_of(entries), "run:done end:done ");
  EXPECT_EQ(entries[0].at("ALLOT_TEXT"), "started: sh -c exit 3; CPUs alone");
  EXPECT_EQ(entries[1].at("ALLOT_STATUS"), "3");
}

// A name with a line break cannot come into an entry as a field of its own.
TEST_F(Log, AnEntryCannotBeForgedByAnArgument) {
  Socket journal(socket_path());
  use_journal();
  EXPECT_EQ(allot({"run", "--sim", "--name", "a", "--", "true", "x\nALLOT_SLICE=other"}).status, 0);
  for (const Entry& entry : journal.entries()) EXPECT_EQ(entry.at("ALLOT_SLICE"), "a");
}

TEST_F(Log, AFullOrMissingJournalStopsNobody) {
  Socket journal(socket_path());
  use_journal();
  // Nobody reads: the kernel's queue of the socket fills up.
  const double before = now();
  for (int i = 0; i < 40; ++i) EXPECT_EQ(allot({"run", "--sim", "--", "true"}).status, 0);
  EXPECT_LT(now() - before, 20);
  environment["ALLOT_JOURNAL"] = folder() + "/nowhere";
  const Outcome got = allot({"run", "--sim", "--", "true"});
  EXPECT_EQ(got.status, 0);
  EXPECT_EQ(got.err, "");
}

// In a mount namespace whose /dev/log is the test's.
TEST_F(Log, WithoutAJournalTheyGoToSyslog) {
  Socket devlog(folder() + "/devlog");
  environment["ALLOT_JOURNAL"] = folder() + "/nowhere";
  const std::string script =
      "mount -t tmpfs none /dev && mkdir /dev/shm && mknod -m 666 /dev/null c 1 3 && mknod -m 666 "
      "/dev/urandom c 1 9 && ln -s " +
      folder() +
      "/devlog /dev/log || exit 77; exec " ALLOT_BINARY
      " run --sim --name a --gpu-mem 500G -- true";
  Command command({"unshare", "-m", "sh", "-c", script}, environment);
  command.close_input();
  const int status = command.wait();
  if (status == 77 || status == 1) GTEST_SKIP() << "no mounts here: " << command.err();
  EXPECT_EQ(status, 125) << command.err();
  const std::string line = devlog.next(2000);
  EXPECT_NE(line.find("allot["), std::string::npos) << line;
  EXPECT_NE(line.find("a: run refused: --gpu-mem: 500 GiB"), std::string::npos) << line;
}

// A journalctl of the test's own says what it was asked, and answers.
TEST_F(Log, ShowsEntriesByFields) {
  use_journal();
  const std::string bin = folder() + "/bin";
  ASSERT_EQ(mkdir(bin.c_str(), 0755), 0);
  std::ofstream(bin + "/journalctl")
      << "#!/bin/sh\nprintf '%s\\n' \"$@\" >" << folder() << "/asked\n"
      << R"(echo '{"__REALTIME_TIMESTAMP":"1700000000123456","_UID":"0","_PID":"42",)"
      << R"("ALLOT_DEED":"freeze","ALLOT_SLICE":"a","ALLOT_RESULT":"done","ALLOT_TEXT":"a: frozen"}')"
      << "\n"
      << R"(echo '{"__REALTIME_TIMESTAMP":"1700000001123456","_UID":"12345",)"
      << R"("ALLOT_DEED":"set","ALLOT_SLICE":"a","ALLOT_RESULT":"refused","ALLOT_TEXT":"no \u001b[2J"}')"
      << "\n"
      << "echo 'no json'; echo '{\"MESSAGE\":\"not of ours\"}'\n";
  ASSERT_EQ(chmod((bin + "/journalctl").c_str(), 0755), 0);
  environment["PATH"] = bin + ":" + std::getenv("PATH");
  environment["TZ"] = "UTC";
  const Outcome got = allot({"log", "a", "--since", "yesterday", "--lines", "7", "--user", "root"});
  EXPECT_EQ(got.status, 0) << got.err;
  EXPECT_EQ(got.out,
            "2023-11-14 22:13:20  root  a  freeze  a: frozen\n"
            "2023-11-14 22:13:21  12345  a  set refused  no \\x1b[2J\n");
  std::ifstream file(folder() + "/asked");
  const std::string asked((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  for (const char* word : {"--identifier=allot\n", "ALLOT_SLICE=a\n", "--since=yesterday\n",
                           "--lines=7\n", "_UID=0\n", "--output=json\n"})
    EXPECT_NE(asked.find(word), std::string::npos) << word << "\n" << asked;
  const Outcome machine_readable = allot({"log", "--json"});
  std::istringstream lines(machine_readable.out);
  std::string first;
  std::getline(lines, first);
  const auto entry = nlohmann::json::parse(first);
  EXPECT_EQ(entry["time_unix_us"], 1700000000123456);
  EXPECT_EQ(entry["user"], "root");
  EXPECT_EQ(entry["pid"], 42);
  EXPECT_EQ(entry["deed"], "freeze");
  EXPECT_EQ(entry["fields"]["ALLOT_TEXT"], "a: frozen");
}

TEST_F(Log, WithoutAJournalItSaysWhatToRead) {
  if (access("/run/systemd/journal/socket", F_OK) == 0)
    GTEST_SKIP() << "this machine has a journal";
  environment["PATH"] = "/nowhere";
  EXPECT_NE(allot({"log"}).err.find("grep allot"), std::string::npos) << "no journalctl";
  environment["PATH"] = std::getenv("PATH");
  const Outcome got = allot({"log"});
  EXPECT_EQ(got.status, 125);
  EXPECT_NE(got.err.find("grep allot /var/log/syslog"), std::string::npos) << got.err;
  EXPECT_EQ(allot({"log", "--lines", "x"}).status, 2);
  EXPECT_EQ(allot({"log", "--user", "no-such-user"}).status, 2);
}

// The real one, in a mount namespace with a /run of its own.
TEST_F(Log, JournaldKeepsWhatIsLogged) {
  const char* daemon = "/lib/systemd/systemd-journald";
  if (access(daemon, X_OK) != 0) GTEST_SKIP() << "no " << daemon;
  environment["ALLOT_JOURNAL"] = "";
  const std::string script =
      std::string("mount -t tmpfs none /run || exit 77; mkdir -p /run/log/journal; ") + daemon +
      " >/dev/null 2>&1 & j=$!; i=0; while [ ! -S /run/systemd/journal/socket ]; do "
      "i=$((i+1)); [ $i -gt 500 ] && exit 77; sleep 0.01; done; " ALLOT_BINARY
      " run --sim --name a --gpu-mem 2G -- true; i=0; while ! " ALLOT_BINARY
      " log a 2>/dev/null | grep -q ended; do i=$((i+1)); [ $i -gt 300 ] && break; sleep 0.01; "
      "done; " ALLOT_BINARY " log a --wide; kill $j; wait $j";
  Command command({"unshare", "-m", "sh", "-c", script}, environment);
  command.close_input();
  const int status = command.wait(20);
  if (status == 77 || status == 1) GTEST_SKIP() << "no journald of its own: " << command.err();
  EXPECT_NE(command.out().find("  root  a  run  started: true; GPU 0: 2 GiB"), std::string::npos)
      << command.out() << command.err();
  EXPECT_NE(command.out().find("  a  end  ended with status 0"), std::string::npos)
      << command.out();
}

}  // namespace
}  // namespace allot::e2e
