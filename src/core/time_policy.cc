// Who may run on a GPU, and when (time_policy.h has the picture).
//
// In four steps. Parts: what part of the GPU's time each active tenant should get, of its share, its
// priority and its max. Windows: who takes one (tenants that fill it, and tenants near their max, who
// would pay with their ceiling for time they share with others), how long, in what order. Slices: so
// that inside each window the holder gets what its part needs and the tenants beside it the rest; those
// beside keep the same slices in all windows, for a change costs a call to the driver. Grants: the phase
// of the cycle says who is open.
//
// Tenants' bytes are hostile: each number is clamped when it is copied, at most kMaxTimeTenants are
// looked at closely, and no sum can overflow. What must not happen here: a result that depends on the
// order of the tenants, or a tenant with work that never gets a window.
#include "core/time_policy.h"

#include <algorithm>

namespace allot::core {
namespace {

constexpr uint64_t kUnit = 1u << 20;        // a permille in fixed point
constexpr uint64_t kFull = kWhole * kUnit;  // all of a GPU's time; its square fits into 64 bits
constexpr uint64_t kLeast = 10 * kUnit;     // so that nobody with work starves
constexpr uint64_t kCrumb = 128;            // the same where shares are far too many: 1/128
constexpr uint64_t kSliverNs = 200'000;     // not worth a switch
constexpr uint64_t kForever = UINT64_MAX;

// Timeslices. 5 ms each is best for two tenants that leave gaps; below 1 ms the switches cost too much;
// with 20 us a request of a high-priority tenant waits least, with 10 us no less (bench/results has the figures).
constexpr uint64_t kRoundUs = 10'000;  // of all that run at the same time, together
constexpr uint64_t kLeastSliceUs = 1'000;
constexpr uint64_t kMostSliceUs = 50'000;
constexpr uint32_t kHighSliceUs = 10'000;
constexpr uint32_t kBesideHighSliceUs = 20;

// A tenant that is neither frozen nor high, as the steps see it. The fixed point fields are parts of kFull.
struct Player {
  uint64_t id;
  uint32_t index;  // in the caller's order
  uint32_t gpus;
  uint64_t share;  // 0 = none asked for
  uint64_t max;    // kFull = none
  bool low;
  bool fills;
  bool active;
  bool awake;
  bool spare;     // low beside normal ones: gets its share, but no lent time
  bool windowed;  // takes windows
  uint64_t weight;
  uint64_t part;    // of the GPU's time it should get
  uint64_t window;  // part of the cycle, if windowed
  uint64_t place;   // its window if all who are awake had work
  uint64_t place_ns;
  uint64_t own_ns;   // what it holds of its place
  uint64_t left_ns;  // of its window, not placed yet
};

// A stretch of the cycle and whose it is.
struct Piece {
  uint64_t begin_ns;
  uint64_t end_ns;
  const Player* holder;
};

struct Table {
  Player players[kMaxTimeTenants];
  uint32_t count = 0;
  bool high = false;        // a high-priority tenant has work
  bool high_awake = false;  // or had not long ago
  uint64_t high_share = 0;  // together
  uint64_t cycle_ns = 0;
  Piece pieces[3 * kMaxTimeTenants + 1];  // in order; places, the gaps between, who divides them
  uint32_t piece_count = 0;

  std::span<Player> all() { return {players, count}; }
  std::span<const Piece> cut() const { return {pieces, piece_count}; }
};

uint64_t share_of(const TimeTenant& tenant) {
  return std::min(tenant.share_permille, kWhole) * kUnit;
}

uint64_t max_of(const TimeTenant& tenant) {
  const bool none = tenant.max_permille == 0 || tenant.max_permille >= kWhole;
  return none ? kFull : tenant.max_permille * kUnit;
}

uint64_t saturating_sum(uint64_t a, uint64_t b) {
  return b > kForever - a ? kForever : a + b;
}

// Keeps the table ordered by id; of too many the last ones fall out.
void insert(Table& table, const Player& player) {
  uint32_t at = table.count;
  while (at > 0 && table.players[at - 1].id > player.id) --at;
  if (at == kMaxTimeTenants) return;
  if (table.count < kMaxTimeTenants) ++table.count;
  for (uint32_t i = table.count - 1; i > at; --i) table.players[i] = table.players[i - 1];
  table.players[at] = player;
}

void collect_high(std::span<const TimeTenant> tenants, Table& table) {
  for (const TimeTenant& tenant : tenants) {
    if (tenant.frozen || tenant.priority != ALLOT_PRIORITY_HIGH) continue;
    table.high_awake |= tenant.active || tenant.awake;
    if (!tenant.active) continue;
    table.high = true;
    table.high_share = std::min(kFull, table.high_share + share_of(tenant));
  }
}

void collect(std::span<const TimeTenant> tenants, Table& table) {
  collect_high(tenants, table);
  for (uint32_t i = 0; i < tenants.size(); ++i) {
    const TimeTenant& tenant = tenants[i];
    if (tenant.frozen || tenant.priority == ALLOT_PRIORITY_HIGH) continue;
    Player player = {};
    player.id = tenant.id;
    player.index = i;
    player.gpus = tenant.gpus;
    player.share = share_of(tenant);
    player.max = max_of(tenant);
    player.low = tenant.priority == ALLOT_PRIORITY_LOW;
    // Kernels on several GPUs wait for each other: what runs beside others here and alone there wastes both.
    // Beside a high one slices are so short that two side by side would do little but switch.
    player.fills = tenant.fills || tenant.gpus > 1 || table.high_awake;
    player.active = tenant.active && !tenant.pays;
    player.awake = tenant.awake || tenant.active;
    insert(table, player);
  }
}

// Deals `total` out in proportion to `weight`, to each at most its max; what a capped one leaves goes to
// the others. The result stands in `*(player.*out)`. Only players that `wanted` names take part. Returns
// what nobody may have.
template <class Wanted>
uint64_t deal(std::span<Player> players, uint64_t total, uint64_t Player::*weight,
              uint64_t Player::*out, Wanted wanted) {
  bool capped[kMaxTimeTenants] = {};
  for (bool again = true; again;) {
    again = false;
    uint64_t weights = 0;
    for (uint32_t i = 0; i < players.size(); ++i) {
      if (wanted(players[i]) && !capped[i]) weights += players[i].*weight;
    }
    if (weights == 0) return total;
    uint64_t taken = 0;
    for (uint32_t i = 0; i < players.size(); ++i) {
      Player& player = players[i];
      if (!wanted(player) || capped[i]) continue;
      player.*out = player.*weight * total / weights;
      if (player.*out < player.max) continue;
      player.*out = player.max;
      capped[i] = true;
      taken += player.max;
    }
    again = taken > 0;
    total -= std::min(total, taken);
  }
  return 0;
}

// Whether it counts: with work (for the windows), or awake (for the places).
using Counts = bool Player::*;

// Step 1. A low tenant beside normal ones has its share (or the least) and is lent nothing; the others
// divide all the rest in proportion to their shares, those without a share an equal part of what is left.
void set_parts(Table& table, Counts counts) {
  bool normals = false;
  for (const Player& player : table.all()) normals |= player.*counts && !player.low;
  uint64_t asked = table.high_share;
  uint64_t without = 0;
  for (Player& player : table.all()) {
    player.part = 0;
    if (!(player.*counts)) continue;
    player.spare = player.low && normals;
    player.weight = player.share > 0 || player.spare ? std::max(player.share, kLeast) : 0;
    asked += player.weight;
    if (player.weight == 0) ++without;
  }
  const uint64_t left = asked < kFull ? kFull - asked : 0;
  uint64_t sum = 0;
  uint64_t spared = 0;
  for (Player& player : table.all()) {
    if (!(player.*counts)) continue;
    if (player.weight == 0) player.weight = std::max(left / without, kLeast);
    sum += player.weight;
    if (player.spare) spared += std::min(player.weight, player.max);
  }
  if (sum >= kFull) {  // overcommitted: everybody gives in proportion
    for (Player& player : table.all()) player.weight = std::max(player.weight, sum / kCrumb);
    deal(table.all(), kFull, &Player::weight, &Player::part,
         [=](const Player& player) { return player.*counts; });
    return;
  }
  const uint64_t rest = deal(table.all(), kFull - spared, &Player::weight, &Player::part,
                             [=](const Player& player) { return player.*counts && !player.spare; });
  deal(table.all(), spared + rest, &Player::weight, &Player::part,
       [=](const Player& player) { return player.*counts && player.spare; });
}

// Whether nobody may run beside it in its window. A ceiling counts all the time in which its tenant might
// run, so one that has a max must not share its window with others.
bool exclusive(const Player& player) {
  return player.windowed && player.max < kFull;
}

// Step 2. Who takes windows and how much of the cycle.
void set_windows(Table& table, Counts counts) {
  uint64_t rest = kFull;
  for (Player& player : table.all()) {
    const bool near_max = player.max < kFull && player.part * 10 >= player.max * 7;
    player.windowed = player.*counts && (player.fills || near_max);
    player.window = 0;
    if (!exclusive(player)) continue;
    player.window = player.part;
    rest -= player.part;
  }
  deal(table.all(), rest, &Player::part, &Player::window,
       [](const Player& player) { return player.windowed && !exclusive(player); });
}

// May not depend on who has work, or the places would move.
void set_cycle(Table& table) {
  uint32_t places = 0;
  bool short_cycle = false;
  for (const Player& player : table.all()) {
    if (!player.awake) continue;
    short_cycle |= player.max < kFull || player.gpus > 1;
    if (player.fills) ++places;
  }
  if (table.high_awake) places = kMaxTimeTenants;
  table.cycle_ns = short_cycle ? kCeilingSpanNs : cycle_ns(places);
}

// Tenants of several GPUs first, so that their windows begin together on all of them; then by id.
void order_places(Table& table) {
  for (uint32_t i = 1; i < table.count; ++i) {
    const Player player = table.players[i];
    uint32_t at = i;
    for (; at > 0 && table.players[at - 1].gpus < player.gpus; --at) {
      table.players[at] = table.players[at - 1];
    }
    table.players[at] = player;
  }
}

void cut_piece(Table& table, uint64_t begin_ns, uint64_t end_ns, const Player& holder) {
  if (end_ns <= begin_ns) return;
  if (end_ns - begin_ns < kSliverNs && table.piece_count > 0) {
    Piece& before = table.pieces[table.piece_count - 1];
    if (before.end_ns == begin_ns && before.holder->max == kFull) {
      before.end_ns = end_ns;
      return;
    }
  }
  table.pieces[table.piece_count++] = {begin_ns, end_ns, &holder};
}

// What [begin, end) of the cycle gives to the player's window, which still lacks left_ns.
uint64_t take(Player& player, uint64_t begin_ns, uint64_t end_ns) {
  const uint64_t length = std::min(player.left_ns, end_ns - begin_ns);
  player.left_ns -= length;
  return length;
}

// Lends [begin, end) of the cycle: the beginning to the player before it and the end to the one behind it, whose
// windows then go on, what is left to the others in turn.
void lend(Table& table, uint64_t begin_ns, uint64_t end_ns, uint32_t before, uint32_t behind) {
  if (begin_ns >= end_ns) return;
  Player& first = table.players[before];
  const uint64_t head_ns = take(first, begin_ns, end_ns);
  cut_piece(table, begin_ns, begin_ns + head_ns, first);
  begin_ns += head_ns;
  Player& last = table.players[behind];
  const uint64_t tail_ns = take(last, begin_ns, end_ns);
  end_ns -= tail_ns;
  for (uint32_t k = 1; k < table.count && begin_ns < end_ns; ++k) {
    Player& player = table.players[(before + k) % table.count];
    const uint64_t length = take(player, begin_ns, end_ns);
    cut_piece(table, begin_ns, begin_ns + length, player);
    begin_ns += length;
  }
  cut_piece(table, end_ns, end_ns + tail_ns, last);
}

// The next player with a place of its own that it uses, from `at` on, around the cycle.
uint32_t next_holder(const Table& table, uint32_t at) {
  for (uint32_t k = 0; k < table.count; ++k) {
    const uint32_t i = (at + k) % table.count;
    if (table.players[i].own_ns > 0) return i;
  }
  return at % table.count;
}

// Who takes windows has a place in the cycle, whether there is work or not: however the others come and go, it
// does not move, so they cannot (by chance or by design) talk a tenant out of its time. The places of those
// without work, and what maxima leave, make up the rest of the windows.
void place_windows(Table& table) {
  if (table.count == 0) return;
  for (Player& player : table.all()) {
    const uint64_t window_ns = player.windowed ? table.cycle_ns * player.window / kFull : 0;
    player.place_ns = table.cycle_ns * player.place / kFull;
    player.own_ns = std::min(player.place_ns, window_ns);
    player.left_ns = window_ns - player.own_ns;
  }
  uint64_t at = 0;
  uint64_t gap = 0;  // lent together: up to the next place that is used
  uint32_t before = 0;
  for (uint32_t i = 0; i < table.count; ++i) {
    if (table.players[i].own_ns > 0) before = i;  // the last one stands before the first
  }
  for (uint32_t i = 0; i < table.count; ++i) {
    const Player& player = table.players[i];
    if (player.own_ns > 0) {
      if (gap < at) lend(table, gap, at, before, i);
      before = i;
      cut_piece(table, at, at + player.own_ns, player);
      gap = at + player.own_ns;
    }
    at += player.place_ns;
  }
  lend(table, gap, table.cycle_ns, before, next_holder(table, 0));
}

// Step 3. What a player's slice is to the sum of those beside, which together are `beside`.
uint64_t slice_weight(const Player& player, uint64_t beside) {
  if (!player.windowed) return player.part;
  if (beside == 0 || player.window <= player.part) return kFull;
  return std::min(kFull, beside * player.part / (player.window - player.part));
}

// The length of a round in microseconds that gives the smallest slice its least, if that can be had.
uint64_t round_us(Table& table, uint64_t beside) {
  uint64_t smallest = kFull;
  for (const Player& player : table.all()) {
    if (!player.active) continue;
    smallest = std::min(smallest, slice_weight(player, beside));
  }
  const uint64_t wanted = kLeastSliceUs * kFull / std::max<uint64_t>(smallest, 1);
  return std::clamp(wanted, kRoundUs, kMostSliceUs);
}

uint32_t slice_us(uint64_t weight, uint64_t round) {
  return static_cast<uint32_t>(std::clamp(round * weight / kFull, kLeastSliceUs, kMostSliceUs));
}

// Step 4. Whether the piece at `phase` of the cycle is one that `mine` names (between pieces: no), and in
// `edge` where that piece ends.
template <class Mine>
bool look_at(const Table& table, uint64_t phase, Mine mine, uint64_t& edge) {
  for (const Piece& piece : table.cut()) {
    edge = phase < piece.begin_ns ? piece.begin_ns : piece.end_ns;
    if (phase < piece.begin_ns) return false;
    if (phase < piece.end_ns) return mine(*piece.holder);
  }
  edge = table.cycle_ns;
  return false;
}

// The same, with the time when it changes: pieces that follow each other make one, over the cycle's end
// too. kForever if it never does.
template <class Mine>
bool look_ahead(const Table& table, uint64_t now_ns, Mine mine, uint64_t& change_ns) {
  const uint64_t phase = now_ns % table.cycle_ns;
  uint64_t edge;
  const bool first = look_at(table, phase, mine, edge);
  change_ns = kForever;
  uint64_t base = 0;  // of the cycle that `edge` is in, from the start of this one
  while (base + edge < phase + table.cycle_ns) {
    const uint64_t at = base + edge;
    if (edge == table.cycle_ns) base = at;
    if (look_at(table, at - base, mine, edge) != first) {
      change_ns = saturating_sum(now_ns, at - phase);
      break;
    }
  }
  return first;
}

void grant_window(const Table& table, const Player& player, uint64_t now_ns, TimeGrant& grant) {
  grant.window_permille = static_cast<uint32_t>((player.window + kUnit / 2) / kUnit);
  if (player.window == kFull) return;
  const auto own = [&](const Player& holder) { return &holder == &player; };
  grant.open = look_ahead(table, now_ns, own, grant.until_ns);
}

void grant_beside(const Table& table, uint64_t now_ns, TimeGrant& grant) {
  uint64_t shut_ns = 0;
  for (const Piece& piece : table.cut()) {
    if (exclusive(*piece.holder)) shut_ns += piece.end_ns - piece.begin_ns;
  }
  if (shut_ns == 0) return;
  grant.open = !look_ahead(table, now_ns, exclusive, grant.until_ns);
  grant.window_permille = kWhole - static_cast<uint32_t>(shut_ns * kWhole / table.cycle_ns);
}

// Everything but the windows: who is frozen, has no work, is high, or fell out of the table.
TimeGrant plain_grant(const TimeTenant& tenant, bool high_beside) {
  TimeGrant grant = {!tenant.frozen, kForever, static_cast<uint32_t>(kLeastSliceUs), kWhole};
  if (tenant.frozen) grant.window_permille = 0;
  if (tenant.priority == ALLOT_PRIORITY_HIGH) {
    grant.slice_us = kHighSliceUs;
  } else if (high_beside) {
    grant.slice_us = kBesideHighSliceUs;
  } else {
    const uint64_t share = share_of(tenant);  // none: as if for two
    grant.slice_us = slice_us(share > 0 ? share : kFull / 2, kRoundUs);
  }
  return grant;
}

}  // namespace

uint64_t cycle_ns(uint32_t windows) {
  return windows <= 2 ? 100'000'000 : windows <= 4 ? 200'000'000 : 250'000'000;
}

void plan_gpu(std::span<const TimeTenant> tenants, uint64_t now_ns, std::span<TimeGrant> grants) {
  Table table;
  collect(tenants, table);
  for (uint32_t i = 0; i < tenants.size(); ++i) grants[i] = plain_grant(tenants[i], table.high);
  set_cycle(table);
  set_parts(table, &Player::awake);
  set_windows(table, &Player::awake);
  for (Player& player : table.all()) player.place = player.window;
  set_parts(table, &Player::active);
  set_windows(table, &Player::active);
  order_places(table);
  place_windows(table);
  uint64_t beside = 0;
  for (const Player& player : table.all()) beside += player.windowed ? 0 : player.part;
  const uint64_t round = round_us(table, beside);
  for (const Player& player : table.all()) {
    if (!player.active) continue;
    TimeGrant& grant = grants[player.index];
    if (!table.high) grant.slice_us = slice_us(slice_weight(player, beside), round);
    if (player.windowed) {
      grant_window(table, player, now_ns, grant);
    } else {
      grant_beside(table, now_ns, grant);
    }
  }
}

bool share_fits(std::span<const uint32_t> shares_permille, uint32_t share_permille) {
  if (share_permille == 0) return true;
  uint64_t sum = share_permille;
  for (uint32_t share : shares_permille) sum += std::min(share, kWhole);
  return sum <= kWhole;
}

}  // namespace allot::core
