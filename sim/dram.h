// SPDX-License-Identifier: Apache-2.0
// sim/dram.py once more, for boards in C++: the same beats leave in the same cycles.

#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>
#include <unordered_map>
#include <vector>

#include "board.h"      // BEAT, and the numbers of golden.config.Dram in namespace `part`

class Dram {
public:
    Dram() : banks(part::banks) {}

    void read(uint64_t address, int beats) {
        for (int n = 0; n < beats; n++) reads.push_back(access(address + uint64_t(n) * BEAT, numbers++, false));
    }

    void write(uint64_t address, int beats) {
        for (int n = 0; n < beats; n++) writes.push_back(access(address + uint64_t(n) * BEAT, 0, true));
    }

    // A cycle passes. How many more beats, in the order asked, may leave from now on.
    int step() {
        now += part::cycle;
        turn();
        if (now >= next_refresh) refresh();
        if (now >= blocked) column(), rows();
        int count = 0;
        for (auto found = arrived.find(next); found != arrived.end() && found->second <= now; found = arrived.find(next))
            arrived.erase(found), next++, count++;
        return count;
    }

private:
    static constexpr int64_t NONE = -1;

    struct Access {
        uint64_t number;
        int bank;
        int64_t row;
        bool write, missed;
        uint64_t id;
    };

    struct Bank {
        int64_t row = NONE;
        std::deque<uint64_t> wanted;        // ids of accesses in order
        std::deque<int64_t> wanted_rows;
        double column = 0, precharge = 0, activate = 0;
    };

    std::vector<Bank> banks;
    std::deque<Access> reads, writes;
    std::vector<Access> active;
    std::unordered_map<uint64_t, double> arrived;
    std::deque<double> activations = std::deque<double>(4, -1e9);
    double now = 0, next_refresh = part::trefi, blocked = 0, last_read = -1e9, last_write = -1e9;
    uint64_t numbers = 0, next = 0, ids = 0;
    bool writing = false;

    Access access(uint64_t address, uint64_t number, bool write) {
        uint64_t place = address / part::page;
        int64_t row = int64_t(place / part::banks);
        int bank = int(place % part::banks);
        for (uint64_t folded = uint64_t(row); folded; folded /= part::banks) bank ^= int(folded % part::banks);
        return {number, bank, row, write, false, ids++};
    }

    void turn() {
        bool full = int(writes.size()) >= part::queue / 2;
        bool over = writing ? writes.empty() : full || reads.empty();
        if (over && active.empty() && (!reads.empty() || !writes.empty())) writing = !writing;
        if (!writing && full) return;
        std::deque<Access>& source = writing ? writes : reads;
        while (!source.empty() && int(active.size()) < part::queue) {
            active.push_back(source.front());
            banks[source.front().bank].wanted.push_back(source.front().id);
            banks[source.front().bank].wanted_rows.push_back(source.front().row);
            source.pop_front();
        }
    }

    void refresh() {
        double start = now;
        for (Bank& bank : banks) start = std::max(start, bank.row != NONE ? bank.precharge : bank.activate);
        blocked = start + part::trpab + part::trfc;
        next_refresh += part::trefi;
        for (Bank& bank : banks) bank.row = NONE, bank.activate = blocked;
    }

    void column() {
        bool may = now >= (writing ? last_read + part::trtw : last_write + part::wl + part::cycle + part::twtr);
        if (!may) return;
        for (size_t n = 0; n < active.size(); n++) {
            Access own = active[n];
            Bank& bank = banks[own.bank];
            if (bank.wanted.front() != own.id || bank.row != own.row || bank.column > now) continue;
            active.erase(active.begin() + long(n));
            bank.wanted.pop_front(), bank.wanted_rows.pop_front();
            if (own.write) {
                last_write = now;
                bank.precharge = std::max(bank.precharge, now + part::wl + part::cycle + part::twr);
            } else {
                last_read = now;
                bank.precharge = std::max(bank.precharge, now + part::trtp);
                arrived[own.number] = now + part::rl + part::cycle;
            }
            return;
        }
    }

    void rows() {
        for (Bank& bank : banks) {
            if (bank.wanted.empty() || bank.wanted_rows.front() == bank.row) continue;
            if (bank.row != NONE && bank.precharge <= now)
                bank.row = NONE, bank.activate = std::max(bank.activate, now + part::trp);
            double spaced = std::max(activations.back() + part::trrd, activations.front() + part::tfaw);
            if (bank.row == NONE && now >= std::max(bank.activate, spaced)) {
                bank.row = bank.wanted_rows.front();
                bank.column = now + part::trcd, bank.precharge = now + part::tras;
                activations.pop_front(), activations.push_back(now);
            }
        }
    }
};
