// SPDX-License-Identifier: Apache-2.0
// Synthetic traffic on a mesh: every node sends and receives at its local link, and all that arrives is checked.
//
// glue.h, which sim/noc.py writes, describes the mesh: its sizes and classes, where the fields of flits and headers
// are, the links of the nodes. Options are words of the form name=value, and those named by the number of a class,
// class=pattern,load,shortest,longest,source, say what it sends; sim/noc.py says what they mean. Ends with one JSON
// object.

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "Vtop.h"
#include "glue.h"
#include "verilated.h"

using std::array, std::deque, std::string, std::vector;

constexpr int ALL = NODES;              // as a source
constexpr int PATIENCE = 10000;         // cycles without arrivals, after which what is missing is lost

// Flits

using Flit = array<uint32_t, (FLIT + 31) / 32>;

static uint64_t get(const Flit& flit, Field field) {
    uint64_t value = 0;
    for (int n = 0, bit = field.first; n < field.bits; n++, bit++)
        value |= uint64_t(flit[bit / 32] >> bit % 32 & 1) << n;
    return value;
}

static void put(Flit& flit, Field field, uint64_t value) {
    for (int n = 0, bit = field.first; n < field.bits; n++, bit++)
        flit[bit / 32] |= uint32_t(value >> n & 1) << bit % 32;
}

static void flip(Flit& flit, int bit) { flit[bit / 32] ^= 1u << bit % 32; }

static bool odd(const Flit& flit, int vc) {
    int ones = std::popcount(unsigned(vc));
    for (uint32_t word : flit) ones += std::popcount(word);
    return ones & 1;
}

// The nodes from (x, y) to (x + right, y + down).
struct Area {
    int x = 0, y = 0, right = 0, down = 0;

    Area() = default;
    Area(int node) : x(node % WIDTH), y(node / WIDTH) {}
    Area(int x, int y, int right, int down) : x(x), y(y), right(right), down(down) {}

    bool has(int node) const {
        return unsigned(node % WIDTH - x) <= unsigned(right) && unsigned(node / WIDTH - y) <= unsigned(down);
    }
    bool others(int node) const { return right || down || !has(node); }
    int corner() const { return y * WIDTH + x; }

    // Outputs of the router of a node that sends there.
    int route(int kind, int node) const {
        int here = node % WIDTH, there = node / WIDTH;
        bool column = CLASSES[kind].yx || (x <= here && here <= x + right);
        bool row = !CLASSES[kind].yx || (y <= there && there <= y + down);
        return (y < there && column) << N | (there < y + down && column) << S
             | (x < here && row) << W | (here < x + right && row) << E;
    }
};

struct Packet {
    int kind, src;                      // class
    Area to;
    int length;                         // flits with the head
    long born;
    uint32_t number = 0;                // among those of its class from src, modulo what the header has room for
    bool overtaken = false;             // by one that left after it
    bool ghost = false;                 // nobody waits for it

    // Data that both ends know.
    uint64_t noise(int index, int lane) const {
        uint64_t x = uint64_t(number) << 40 | uint64_t(src) << 32 | uint64_t(to.corner()) << 24
                   | to.down << 20 | to.right << 16 | kind << 12 | index << 3 | lane;
        x *= 0x9e3779b97f4a7c15;
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
        return x ^ x >> 29;
    }

    // A flit on a link; `route` is of the head.
    Flit flit(int index, int vc, int route) const {
        Flit made{};
        for (int lane = index == 0; lane < DATA.bits / 64; lane++) put(made, {64 * lane, 64}, noise(index, lane));
        if (index == 0) {
            put(made, header::dst_x, to.x), put(made, header::dst_y, to.y);
            put(made, header::ext_x, to.right), put(made, header::ext_y, to.down);
            put(made, header::src_x, src % WIDTH), put(made, header::src_y, src / WIDTH);
            put(made, header::tag, number), put(made, header::user, number >> header::tag.bits);
            put(made, header::length, length - 1), put(made, header::last, 1);
            put(made, header::op, noise(0, 0)), put(made, header::chip, noise(0, 0) >> 8);
            put(made, ROUTE, route);
        }
        put(made, HEAD, index == 0), put(made, TAIL, index == length - 1);
        if (odd(made, vc)) flip(made, PARITY.first);
        return made;
    }

    // The number that a head carries.
    static uint32_t read(const Flit& head) {
        return get(head, header::user) << header::tag.bits | get(head, header::tag);
    }
    static constexpr uint32_t NUMBERS = 1u << (header::tag.bits + header::user.bits);
};

// The whole

struct Traffic {
    string pattern = "none";
    double load = 0;                    // flits a cycle of each source
    int shortest = 1, longest = 1;      // packets
    int source = ALL;

    static Traffic read(const string& text) {
        char pattern[32];
        Traffic found;
        if (sscanf(text.c_str(), "%31[^,],%lf,%d,%d,%d", pattern, &found.load, &found.shortest, &found.longest,
                   &found.source) != 5) {
            fprintf(stderr, "noc: %s is no traffic\n", text.c_str());
            exit(1);
        }
        found.pattern = pattern;
        return found;
    }
};

struct Options {
    array<Traffic, KINDS> traffic;
    long warmup, cycles, packets, flips;
    double stall;
    uint64_t seed;
    string fault;

    explicit Options(std::map<string, string> given) {
        for (int kind = 0; kind < KINDS; kind++)
            if (auto text = given[std::to_string(kind)]; !text.empty()) traffic[kind] = Traffic::read(text);
        warmup = stol(given["warmup"]), cycles = stol(given["cycles"]), packets = stol(given["packets"]);
        flips = stol(given["flips"]), stall = stod(given["stall"]), seed = stoull(given["seed"]);
        fault = given["fault"];
    }
};

struct Simulation;

// What an interface does, a flit a cycle: sends packets, one of each class at a time; takes flits and gives credits.
struct Node {
    Simulation& sim;
    const int me;
    Link send, receive;

    struct Sending {
        deque<Packet> queue;
        int index = 0, vc = 0;                      // of the flit that is next
        uint32_t sent = 0;
    };
    array<Sending, KINDS> sending;
    array<deque<int>, VCS> ahead;                   // buckets of the flits that may be in the router's buffers
    int turn = 0;

    struct Arriving {
        Packet packet;
        int index = 0;
        bool open = false, known = false;
    };
    array<Arriving, VCS> arriving;
    array<int, VCS> buffered{};
    int credits = 0;

    Node(Simulation& sim, int me);
    void generate();
    void drive();
    void depart(Packet& packet);
    void damage(const Packet& packet, Flit& head);
    void sample();
    void arrive(int vc, const Flit& flit);

    void make(int kind, Area to);
    Area destination(const string& pattern);
    Area rectangle();
    int choose(const Packet& packet);
    bool identify(const Flit& head, int kind, Packet& packet);
};

struct Flow {
    long flits = 0;                                 // arrived within the measured cycles
    deque<Packet> under_way;
};

struct Simulation {
    Options options;
    VerilatedContext context;
    Vtop top{&context};
    std::mt19937_64 random{options.seed};
    vector<Flow> flows = vector<Flow>(KINDS * NODES * NODES);
    vector<Node> nodes;

    long now = 0, last = 0, made = 0, taken = 0, copies = 0, delivered = 0, under_way = 0;
    long flipped = 0, spoiled = 0, reported = 0, seen = -1;     // cycle in which a router reported damage, if one does
    struct { long lost, duplicated, misrouted, reordered, corrupted, credits; } faults{};
    struct Measured { long flits, packets, latency, worst; };
    array<Measured, KINDS> measured{};
    bool making = true, struck = false;

    explicit Simulation(Options given) : options(std::move(given)) {
        for (int node = 0; node < NODES; node++) nodes.emplace_back(*this, node);
    }

    Flow& flow(int kind, int src, int dst) { return flows[(kind * NODES + src) * NODES + dst]; }
    bool chance(double probability) { return random() * 0x1p-64 < probability; }
    int below(int bound) { return random() % bound; }
    bool measuring() const { return options.warmup <= now && now < options.cycles; }

    // Whether the fault that was asked for, one that the checks should find, is to be made now: once.
    bool strike(const char* fault, bool possible) {
        bool now = !struck && possible && delivered >= 100 && options.fault == fault;
        struck |= now;
        return now;
    }

    void run();
    void cycle();
    void watch();
    void stop();
    void print();
};

// Sending

Node::Node(Simulation& sim, int me) : sim(sim), me(me), send(::send(sim.top, me)), receive(::receive(sim.top, me)) {}

void Node::generate() {
    for (int kind = 0; kind < KINDS; kind++) {
        const Traffic& traffic = sim.options.traffic[kind];
        if (traffic.source != ALL && traffic.source != me) continue;
        if (sim.chance(traffic.load * 2 / (traffic.shortest + traffic.longest)))
            if (Area to = destination(traffic.pattern); to.others(me)) make(kind, to);
    }
}

void Node::make(int kind, Area to) {
    if (!sim.making && !sim.options.packets) return;
    const Traffic& traffic = sim.options.traffic[kind];
    int length = traffic.shortest + sim.below(traffic.longest - traffic.shortest + 1);
    sending[kind].queue.push_back({kind, me, to, length, sim.now});
    sim.made++;
}

// By a pattern; this node itself stands for nobody.
Area Node::destination(const string& pattern) {
    if (pattern == "broadcast") return {0, 0, WIDTH - 1, HEIGHT - 1};
    if (pattern == "rectangle") return rectangle();
    if (pattern == "transpose") return me % WIDTH * WIDTH + me / WIDTH;
    if (pattern == "memory") {
        bool mine = std::find(std::begin(MEMORIES), std::end(MEMORIES), me) != std::end(MEMORIES);
        return mine ? me : MEMORIES[sim.below(std::size(MEMORIES))];
    }
    if (pattern == "hotspot" && me != HOTSPOT && sim.chance(0.1)) return HOTSPOT;
    if (pattern == "uniform" || pattern == "hotspot") return (me + 1 + sim.below(NODES - 1)) % NODES;
    return me;
}

Area Node::rectangle() {
    auto [left, right] = std::minmax({sim.below(WIDTH), sim.below(WIDTH)});
    auto [top, bottom] = std::minmax({sim.below(HEIGHT), sim.below(HEIGHT)});
    Area found{left, top, right - left, bottom - top};
    return found.others(me) ? found : rectangle();
}

// The freest virtual channel of the class; but while a packet of the same bucket is behind one, no other. Or none: -1.
int Node::choose(const Packet& packet) {
    const Class& kind = CLASSES[packet.kind];
    int chosen = -1;
    for (int vc = kind.first; vc < kind.first + kind.vcs; vc++) {
        const deque<int>& there = ahead[vc];
        bool must = std::find(there.begin(), there.end(), BUCKET[packet.to.corner()]) != there.end();
        // A multicast begins when there is room for all of it, with the credit that comes now.
        bool room = kind.multicast ? there.size() + packet.length <= DEPTH + (*send.credit >> vc & 1)
                                   : there.size() < DEPTH;
        if (must) return room ? vc : -1;
        if (room && (chosen < 0 || there.size() < ahead[chosen].size())) chosen = vc;
    }
    return chosen;
}

void Node::drive() {
    *receive.credit = credits;
    *send.valid = 0;
    for (int n = 0; n < KINDS && !*send.valid; n++) {
        int kind = (turn + n) % KINDS;
        Sending& one = sending[kind];
        if (one.queue.empty()) continue;
        Packet& packet = one.queue.front();
        if (one.index == 0) one.vc = choose(packet);
        if (one.vc < 0 || ahead[one.vc].size() == DEPTH) continue;

        if (one.index == 0 && !packet.ghost) depart(packet);
        Flit flit = packet.flit(one.index, one.vc, packet.to.route(kind, me));
        if (one.index == 0) damage(packet, flit);
        std::copy(flit.begin(), flit.end(), send.flit);
        *send.valid = 1 << one.vc;
        ahead[one.vc].push_back(BUCKET[packet.to.corner()]);
        turn = (kind + 1) % KINDS;
        if (++one.index < packet.length) continue;
        one.index = 0;
        if (sim.strike("duplicated", true)) packet.ghost = true;
        else one.queue.pop_front();
    }
}

// The head leaves: who gets the packet waits for it from now on.
void Node::depart(Packet& packet) {
    sim.taken++;
    packet.number = sending[packet.kind].sent++ % Packet::NUMBERS;
    for (int dst = 0; dst < NODES; dst++) {
        if (dst == me || !packet.to.has(dst)) continue;
        deque<Packet>& before = sim.flow(packet.kind, me, dst).under_way;
        before.insert(before.end() - sim.strike("reordered", !before.empty()), packet);
        sim.copies++, sim.under_way++;
    }
}

// Flip a bit of some heads, each in turn, when the router has said so of the one before. A bit of the route for a
// neighbour that the node does not have, or that leads back, spoils nothing.
void Node::damage(const Packet& packet, Flit& head) {
    if (!sim.making || sim.flipped == sim.options.flips || sim.flipped > sim.reported || !sim.chance(0.01)) return;
    int bit = sim.flipped++ % FLIT, ways = Area(0, 0, WIDTH - 1, HEIGHT - 1).route(packet.kind, me);
    flip(head, bit);
    if (bit >= ROUTE.first && bit < ROUTE.first + ROUTE.bits && !(ways >> (bit - ROUTE.first) & 1)) return;
    for (int dst = 0; dst < NODES; dst++) sim.spoiled += dst != me && packet.to.has(dst);
}

// Receiving

void Node::sample() {
    for (int vc = 0; vc < VCS; vc++)
        if (*send.credit >> vc & 1) {
            if (ahead[vc].empty()) sim.faults.credits++;
            else ahead[vc].pop_front();
        }
    credits = 0;
    for (int vc = 0; vc < VCS; vc++)
        if (buffered[vc] && !(sim.options.stall && sim.chance(sim.options.stall))) {
            buffered[vc]--;
            credits |= 1 << vc;
        }
    if (!*receive.valid) return;
    int vc = std::countr_zero(unsigned(*receive.valid));
    if (*receive.valid != 1 << vc || ++buffered[vc] > DEPTH) sim.faults.credits++;
    Flit flit;
    std::copy_n(receive.flit, flit.size(), flit.begin());

    Node& neighbour = sim.nodes[(me + 1) % NODES];
    bool single = get(flit, HEAD) && get(flit, TAIL);
    if (sim.strike("corrupted", !get(flit, HEAD))) flip(flit, DATA.first);
    if (sim.strike("lost", single)) return;
    if (sim.strike("misrouted", single && !neighbour.arriving[vc].open)) neighbour.arrive(vc, flit);
    else arrive(vc, flit);
}

void Node::arrive(int vc, const Flit& flit) {
    int kind = 0;
    while (vc >= CLASSES[kind].first + CLASSES[kind].vcs) kind++;
    bool head = get(flit, HEAD), tail = get(flit, TAIL);
    Arriving& one = arriving[vc];
    if (head == one.open) sim.faults.corrupted++;
    if (head) one.index = 0, one.known = identify(flit, kind, one.packet);
    one.open = !tail;
    if (!one.known) return;

    const Packet& packet = one.packet;
    if (flit != packet.flit(one.index++, vc, 0)) sim.faults.corrupted++;
    one.known = !tail;
    sim.last = sim.now;
    if (sim.measuring()) sim.measured[kind].flits++, sim.flow(kind, packet.src, me).flits++;
    if (!tail) return;
    sim.delivered++;
    if (sim.measuring()) {
        Simulation::Measured& of = sim.measured[kind];
        long latency = sim.now - packet.born;
        of.packets++, of.latency += latency, of.worst = std::max(of.worst, latency);
    }
    for (int other = 0; other < KINDS; other++)
        if (CLASSES[other].replies_to == kind && sim.options.traffic[other].pattern == "reply") make(other, packet.src);
}

// The packet under way that a head belongs to, if there is one.
bool Node::identify(const Flit& head, int kind, Packet& packet) {
    unsigned x = me % WIDTH - get(head, header::dst_x), y = me / WIDTH - get(head, header::dst_y);
    if (x > get(head, header::ext_x) || y > get(head, header::ext_y)) {
        sim.faults.misrouted++;
        return false;
    }
    int src = get(head, header::src_y) * WIDTH + get(head, header::src_x);
    deque<Packet>& expected = sim.flow(kind, src % NODES, me).under_way;
    auto found = std::find_if(expected.begin(), expected.end(),
                              [number = Packet::read(head)](const Packet& each) { return each.number == number; });
    if (found == expected.end()) {
        sim.faults.duplicated++;
        return false;
    }
    sim.faults.reordered += found->overtaken;
    for (auto earlier = expected.begin(); earlier != found; earlier++) earlier->overtaken = true;
    packet = *found;
    expected.erase(found);
    sim.under_way--;
    return true;
}

// The whole

void Simulation::cycle() {
    for (Node& node : nodes) node.drive();
    top.clk = 0, top.eval();
    for (Node& node : nodes) node.sample();
    watch();
    top.clk = 1, top.eval();
    now++;
}

// Count what routers report, a packet at a time: the rest of it has gone too when they are to forget it.
void Simulation::watch() {
    if (top.clear) {
        top.clear = 0;
        seen = -1;
    } else if (seen < 0) {
        for (int node = 0; node < NODES; node++)
            if (error(top, node)) seen = now;
    } else if (now == seen + 100) {
        top.clear = 1;
        reported++;
    }
}

void Simulation::run() {
    top.rst = 1;
    for (int n = 0; n < 4; n++) top.clk = 0, top.eval(), top.clk = 1, top.eval();
    top.rst = 0;
    while (now - last < PATIENCE && (making || taken < made || under_way)) {
        if (making)
            for (Node& node : nodes) node.generate();
        cycle();
        bool done = options.packets ? made >= options.packets : now >= options.cycles;
        if (making && (done || (options.flips && reported == options.flips))) stop();
    }
    for (int n = 0; n < 200; n++) cycle();
    faults.lost = under_way + made - taken;
    for (Node& node : nodes)
        for (deque<int>& there : node.ahead) faults.credits += there.size();
}

// Make no more packets; what has not begun to leave stays, unless it was asked for by number.
void Simulation::stop() {
    making = false;
    if (options.packets) return;
    for (Node& node : nodes)
        for (Node::Sending& one : node.sending) one.queue.resize(one.index > 0);
    made = taken;
}

void Simulation::print() {
    printf("{\"cycles\": %ld, \"last\": %ld, \"sent\": %ld, \"copies\": %ld, ", now, last, taken, copies);
    printf("\"delivered\": %ld, ", delivered);
    printf("\"flipped\": %ld, \"reported\": %ld, \"spoiled\": %ld,\n", flipped, reported, spoiled);
    printf("\"faults\": {\"lost\": %ld, \"duplicated\": %ld, ", faults.lost, faults.duplicated);
    printf("\"misrouted\": %ld, \"reordered\": %ld, ", faults.misrouted, faults.reordered);
    printf("\"corrupted\": %ld, \"credits\": %ld},\n\"classes\": [", faults.corrupted, faults.credits);
    for (int kind = 0; kind < KINDS; kind++) {
        const Measured& of = measured[kind];
        printf(kind ? ",\n{" : "{");
        printf("\"flits\": %ld, \"packets\": %ld, ", of.flits, of.packets);
        printf("\"latency\": %ld, \"worst\": %ld,\n\"flows\": [", of.latency, of.worst);
        for (int src = 0; src < NODES; src++) {
            printf(src ? ",\n[" : "[");
            for (int dst = 0; dst < NODES; dst++) printf(dst ? ", %ld" : "%ld", flow(kind, src, dst).flits);
            printf("]");
        }
        printf("]}");
    }
    printf("]}\n");
}

int main(int count, char** words) {
    std::map<string, string> given;
    for (int n = 1; n < count; n++) {
        string word = words[n];
        size_t middle = word.find('=');
        given[word.substr(0, middle)] = word.substr(middle + 1);
    }
    auto simulation = std::make_unique<Simulation>(Options(given));
    simulation->run();
    simulation->print();
}
