// SPDX-License-Identifier: Apache-2.0
// A board with a serial line in the hands of sim/board.py, which writes orders to standard input and reads answers from
// standard output. Numbers are little-endian.
//
//   W length bytes       send bytes                     B byte       send one without its stop bit
//   R length cycles      bytes that were received, as many as that or as come without so many cycles of silence between:
//                        how many, bytes
//   L cycles level       hold the line
//   C                    cycles since the begin

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <vector>

#include "Vtop.h"
#include "board.h"      // DIVISOR
#include "verilated.h"

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

class Board {
public:
    uint64_t cycle = 0;
    std::deque<uint8_t> received;

    Board() {
        top.rx = 1, top.rst = 1;
        hold(4);
        top.rst = 0;
        hold(2 * DIVISOR);
    }

    void hold(uint64_t cycles, int level = 1) {
        top.rx = level;
        while (cycles--) step();
    }

    void send(uint8_t byte, int stop = 1) {
        hold(DIVISOR, 0);
        for (int n = 0; n < 8; n++) hold(DIVISOR, byte >> n & 1);
        hold(DIVISOR, stop);
        top.rx = 1;
    }

    void receive(uint64_t length, uint64_t patience) {
        for (uint64_t silence = 0; received.size() < length && silence < patience; silence++) {
            step();
            if (left) silence = 0;
        }
        give(uint64_t(std::min<uint64_t>(length, received.size())));
        for (; length-- && !received.empty(); received.pop_front()) give(received.front());
    }

private:
    Vtop top;
    int left = 0, timer = 0;        // of what is being received: bits, cycles to the middle of the next
    uint8_t byte = 0;

    void step() {
        top.clk = 0, top.eval();
        top.clk = 1, top.eval();
        cycle++;
        if (!left) {
            if (!top.tx) left = 10, timer = DIVISOR / 2;
        } else if (!timer--) {
            timer = DIVISOR - 1;
            if (--left == 0) {
                if (!top.tx) fail("a byte without a stop bit");
                received.push_back(byte);
            } else if (left < 9) {
                byte = byte >> 1 | top.tx << 7;
            }
        }
    }
};

int main(int argc, char** argv) {
    Verilated::commandArgs(argc, argv);
    Board board;
    while (true) {
        fflush(stdout);
        switch (take<char>()) {
        case 'W':
            for (uint64_t length = take<uint64_t>(); length; length--) board.send(take<uint8_t>());
            break;
        case 'B': board.send(take<uint8_t>(), 0); break;
        case 'R': {
            uint64_t length = take<uint64_t>();
            board.receive(length, take<uint64_t>());
            break;
        }
        case 'L': {
            uint64_t cycles = take<uint64_t>();
            board.hold(cycles, take<uint8_t>());
            board.hold(1);
            break;
        }
        case 'C': give(board.cycle); break;
        default: fail("no such order");
        }
    }
}
