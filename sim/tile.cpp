// SPDX-License-Identifier: Apache-2.0
// A board: a tile, and memory behind its channel, in the hands of sim/tile.py, which writes orders to standard input and
// reads answers from standard output. Numbers are little-endian.
//
//   W address length bytes   write memory             R address length         read memory: bytes
//   S register value         write a register         G register               read one: value, response
//   U cycles                 run until the interrupt, or for so many cycles: cycles gone, interrupt
//   L                        writes since the last L: how many, and of each the cycle, its address, and beats read so far
//                            by each id
//   T length path            note in a file when which events take place; of length 0: no more
//   D                        the memory takes its time as a DRAM does; before the first run

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "Vtop.h"
#include "board.h"      // BEAT, LATENCY
#include "dram.h"
#include "verilated.h"

#define AXI(name) top.axi___05F##name
#define HOST(name) top.host___05F##name

static const int IDS = 8;
static const int OKAY = 0, DECERR = 3;
static const uint64_t PAGE = 4096;

template <typename T> static const uint8_t* bytes(const T& signal) { return reinterpret_cast<const uint8_t*>(&signal); }
template <typename T> static uint8_t* bytes(T& signal) { return reinterpret_cast<uint8_t*>(&signal); }

static void fail(const char* what) {
    fprintf(stderr, "board: %s\n", what);
    exit(3);
}

template <typename T> static T take() {
    T value;
    if (fread(&value, sizeof value, 1, stdin) != 1) exit(0);
    return value;
}

template <typename T> static void give(T value) { fwrite(&value, sizeof value, 1, stdout); }

struct Read { uint64_t address; int beats, id; };
struct Answer { uint64_t cycle; int id, response; };
struct Written { uint64_t cycle, address; std::array<uint64_t, IDS> read; };

class Board {
public:
    Vtop top;
    std::vector<uint8_t> memory;
    std::unique_ptr<Dram> dram;
    uint64_t cycle = 0;
    std::vector<Written> log;
    FILE* trace = nullptr;

    explicit Board(uint64_t size) : memory(size) {
        top.clk = 0, top.rst = 1;
        AXI(arready) = AXI(awready) = AXI(wready) = 1;
        for (int n = 0; n < 4; n++) step();
        top.rst = 0;
    }

    void step() {
        prepare();
        top.clk = 0, top.eval();
        top.clk = 1;
        // What the edge sees is what was there before it.
        sample();
        top.eval();
        cycle++;
    }

    void run(uint64_t cycles) {
        uint64_t begin = cycle;
        while (cycle - begin < cycles && !top.irq) step();
        give(cycle - begin);
        give(uint8_t(top.irq));
    }

    void set(uint32_t address, uint32_t value) {
        HOST(awaddr) = address, HOST(awvalid) = 1;
        HOST(wdata) = value, HOST(wstrb) = 15, HOST(wvalid) = 1, HOST(bready) = 1;
        bool sent = false;
        for (int n = 0; n < 100; n++) {
            top.clk = 0, top.eval();
            bool goes = HOST(awvalid) && HOST(awready) && HOST(wready), done = HOST(bvalid);
            step();
            if (goes) HOST(awvalid) = HOST(wvalid) = 0, sent = true;
            if (sent && done) return;
        }
        fail("the host port does not answer");
    }

    void get(uint32_t address) {
        HOST(araddr) = address, HOST(arvalid) = 1, HOST(rready) = 1;
        for (int n = 0; n < 100; n++) {
            top.clk = 0, top.eval();
            bool goes = HOST(arvalid) && HOST(arready), done = HOST(rvalid);
            uint32_t value = HOST(rdata);
            uint8_t response = HOST(rresp);
            step();
            if (goes) HOST(arvalid) = 0;
            if (done) return give(value), give(response);
        }
        fail("the host port does not answer");
    }

private:
    std::deque<Read> reads;
    std::deque<uint64_t> due;           // of an ideal memory: when a beat may leave
    std::deque<std::pair<uint64_t, int>> writes;    // bursts: address, id
    std::deque<Answer> answers;
    std::array<uint64_t, IDS> counted{};
    int beat = 0, may = 0;              // beats of the first read that have left; that may leave, all reads
    uint64_t written = 0;               // bytes of the first write
    std::vector<uint8_t> last = std::vector<uint8_t>(sizeof(top.events));

    // Inputs of this cycle
    void prepare() {
        if (dram) {
            may += dram->step();
        } else {
            while (!due.empty() && due.front() <= cycle) due.pop_front(), may++;
        }
        AXI(rvalid) = may > 0 && !reads.empty();
        if (AXI(rvalid)) {
            Read& own = reads.front();
            uint64_t address = own.address + uint64_t(beat) * BEAT;
            AXI(rid) = own.id, AXI(rlast) = beat + 1 == own.beats, AXI(rresp) = there(address) ? OKAY : DECERR;
            if (there(address)) memcpy(bytes(AXI(rdata)), &memory[address], BEAT);
        }
        AXI(bvalid) = !answers.empty() && answers.front().cycle <= cycle;
        if (AXI(bvalid)) AXI(bid) = answers.front().id, AXI(bresp) = answers.front().response;
    }

    // What passes in this cycle
    void sample() {
        if (top.rst) return;
        if (AXI(rvalid) && AXI(rready)) {
            may--, counted[reads.front().id]++;
            if (++beat == reads.front().beats) beat = 0, reads.pop_front();
        }
        if (AXI(arvalid)) {
            Read asked{AXI(araddr), AXI(arlen) + 1, AXI(arid)};
            check(asked.address, asked.beats);
            reads.push_back(asked);
            if (dram) dram->read(asked.address, asked.beats);
            for (int n = 0; n < asked.beats && !dram; n++) due.push_back(cycle + LATENCY);
        }
        if (AXI(bvalid) && AXI(bready)) answers.pop_front();
        if (AXI(awvalid)) {
            check(AXI(awaddr), AXI(awlen) + 1);
            writes.push_back({AXI(awaddr), AXI(awid)});
        }
        if (AXI(wvalid)) {
            if (writes.empty()) fail("data without an address");
            auto [address, id] = writes.front();
            for (int n = 0; n < BEAT && there(address + written); n++)
                if (bytes(AXI(wstrb))[n / 8] >> n % 8 & 1) memory[address + written + n] = bytes(AXI(wdata))[n];
            written += BEAT;
            if (AXI(wlast)) {
                if (dram) dram->write(address, written / BEAT);
                log.push_back({cycle, address, counted});
                answers.push_back({cycle + LATENCY, id, there(address + written - BEAT) ? OKAY : DECERR});
                writes.pop_front(), written = 0;
            }
        }
        if (trace && memcmp(last.data(), bytes(top.events), last.size())) {
            memcpy(last.data(), bytes(top.events), last.size());
            fwrite(&cycle, sizeof cycle, 1, trace);
            fwrite(last.data(), last.size(), 1, trace);
        }
    }

    // Nobody answers for what is beyond memory.
    bool there(uint64_t address) const { return address < memory.size(); }

    void check(uint64_t address, int beats) {
        uint64_t end = address + uint64_t(beats) * BEAT;
        if (address % BEAT || address / PAGE != (end - 1) / PAGE) {
            fprintf(stderr, "board: a burst of %d beats at %#llx\n", beats, (unsigned long long)address);
            exit(3);
        }
    }
};

int main(int argc, char** argv) {
    Verilated::commandArgs(argc, argv);
    Board board(strtoull(argv[1], nullptr, 0));
    while (true) {
        fflush(stdout);
        switch (take<char>()) {
        case 'W': {
            uint64_t address = take<uint64_t>(), length = take<uint64_t>();
            if (address + length > board.memory.size()) fail("a write beyond memory");
            if (length && fread(&board.memory[address], length, 1, stdin) != 1) exit(0);
            break;
        }
        case 'R': {
            uint64_t address = take<uint64_t>(), length = take<uint64_t>();
            if (address + length > board.memory.size()) fail("a read beyond memory");
            fwrite(&board.memory[address], length, 1, stdout);
            break;
        }
        case 'S': {
            uint32_t address = take<uint32_t>();
            board.set(address, take<uint32_t>());
            break;
        }
        case 'G': board.get(take<uint32_t>()); break;
        case 'U': board.run(take<uint64_t>()); break;
        case 'L':
            give(uint64_t(board.log.size()));
            for (auto& each : board.log) {
                give(each.cycle), give(each.address);
                for (uint64_t count : each.read) give(count);
            }
            board.log.clear();
            break;
        case 'T': {
            uint64_t length = take<uint64_t>();
            std::string path(length, 0);
            if (length && fread(&path[0], length, 1, stdin) != 1) exit(0);
            if (board.trace) fclose(board.trace);
            board.trace = length ? fopen(path.c_str(), "wb") : nullptr;
            break;
        }
        case 'D': board.dram.reset(new Dram()); break;
        default: fail("no such order");
        }
    }
}
