// SPDX-License-Identifier: Apache-2.0
// Nodes behind the interfaces of a network: they send what they are told, and write down what they get.
//
// glue.h, which sim/collectives.py writes, describes the network: its sizes, where the fields of headers and commands
// are, the ports of the nodes. Lines of the input, with bits and words in hexadecimal:
//
//     write BITS                       what port `write` is given, one a cycle, before all else
//     send NODE CLASS COMMAND WORD...  a message
//     turn NODE TAG COMMAND            a reduction of the tag that comes to the node goes on as a multicast
//
// Options are words of the form name=value: `words`, how many should come; `stall`, the probability with which a node
// does not begin to offer, or does not take, in a cycle; `seed`. Each word that comes is a line of the output: the
// cycle, from the first command on, the node, the class, its data, and the bits first, last and error.

#include <cstdio>
#include <deque>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "Vtop.h"
#include "glue.h"
#include "verilated.h"

using std::deque, std::map, std::string, std::vector;

constexpr int PATIENCE = 5000;          // cycles without a word, after which what is missing is lost

static uint64_t get(uint64_t bits, Field field) { return bits >> field.first & ((1ull << field.bits) - 1); }

struct Simulation {
    VerilatedContext context;
    Vtop top{&context};
    std::mt19937_64 random;
    double stall;
    long words, now = 0, last = 0;
    vector<struct Node> nodes;

    explicit Simulation(map<string, string> given);
    bool stalls() { return stall && random() * 0x1p-64 < stall; }
    void edge() { top.clk = 1, top.eval(), top.clk = 0; }
    void read(std::istream& input);
    void run();
};

// Offers what waits, in order.
struct Source {
    Simulation& sim;
    Input port;
    deque<uint64_t> queue;
    bool offered = false;

    void drive() {
        if (!offered && !queue.empty() && !sim.stalls()) offered = true, *port.payload = queue.front();
        *port.valid = offered;
    }
    void sample() {
        if (offered && *port.ready) offered = false, queue.pop_front();
    }
};

struct Stream {
    Source commands, words;
    Output out;
};

static uint64_t word(const Output& out) { return out.payload[0] | uint64_t(out.payload[1]) << 32; }
static bool first(const Output& out) { return out.payload[2] & 1; }

struct Node {
    Simulation& sim;
    const int me;
    vector<Stream> streams;             // by class
    map<int, uint64_t> turns;           // by tag
    const uint64_t* turn = nullptr;     // of the reduction that comes

    Node(Simulation& sim, int me) : sim(sim), me(me) {
        for (int kind = 0; kind < KINDS; kind++)
            streams.push_back({{sim, port_command(sim.top, me, kind), {}}, {sim, port_i(sim.top, me, kind), {}},
                               port_o(sim.top, me, kind)});
    }

    void drive() {
        for (Stream& each : streams) each.commands.drive(), each.words.drive();
    }

    void take() {
        for (int kind = 0; kind < KINDS; kind++) {
            const Output& out = streams[kind].out;
            *out.ready = *out.valid && !sim.stalls() && (kind != SUMS || pass(out));
        }
    }

    // What comes of a reduction leaves in the same cycle if it can, its header as a command. Whether there is room.
    bool pass(const Output& out) {
        uint64_t data = word(out);
        if (first(out)) {
            auto found = turns.find(get(data, header::tag));
            turn = found == turns.end() ? nullptr : &found->second;
        }
        if (!turn) return true;
        Source& on = first(out) ? streams[CAST].commands : streams[CAST].words;
        if (on.queue.size() >= 2) return false;
        on.queue.push_back(first(out) ? *turn | get(data, header::length) << COUNT : data);
        on.drive();
        return true;
    }

    void sample() {
        for (int kind = 0; kind < KINDS; kind++) {
            Stream& each = streams[kind];
            each.commands.sample(), each.words.sample();
            if (!*each.out.valid || !*each.out.ready) continue;
            printf("%ld %d %d %lx %x\n", sim.now, me, kind, word(each.out), each.out.payload[2]);
            sim.last = sim.now, sim.words--;
        }
    }
};

Simulation::Simulation(map<string, string> given)
    : random(stoull(given["seed"])), stall(stod(given["stall"])), words(stol(given["words"])) {
    for (int node = 0; node < NODES; node++) nodes.emplace_back(*this, node);
}

void Simulation::read(std::istream& input) {
    top.rst = 1;
    for (int n = 0; n < 4; n++) top.eval(), edge();
    top.rst = 0;
    for (string line; std::getline(input, line);) {
        std::istringstream rest(line);
        string what;
        int node, number;
        uint64_t bits;
        rest >> what;
        if (what == "write") {
            rest >> std::hex >> top.write, top.eval(), edge();
            top.write = 0;
            continue;
        }
        rest >> node >> number >> std::hex >> bits;
        if (what == "turn") {
            nodes[node].turns[number] = bits;
            continue;
        }
        Stream& stream = nodes[node].streams[number];
        stream.commands.queue.push_back(bits);
        while (rest >> bits) stream.words.queue.push_back(bits);
    }
}

void Simulation::run() {
    for (long quiet = 0; quiet < (words > 0 ? PATIENCE : 100); now++, quiet = now - last) {
        for (Node& node : nodes) node.drive();
        top.eval();
        for (Node& node : nodes) node.take();
        top.eval();
        for (Node& node : nodes) node.sample();
        edge();
    }
}

int main(int count, char** words) {
    map<string, string> given;
    for (int n = 1; n < count; n++) {
        string word = words[n];
        size_t middle = word.find('=');
        given[word.substr(0, middle)] = word.substr(middle + 1);
    }
    auto simulation = std::make_unique<Simulation>(given);
    simulation->read(std::cin);
    simulation->run();
    if (!failed(simulation->top)) return 0;
    fprintf(stderr, "a router or an interface reported an error\n");
    return 1;
}
