// SPDX-License-Identifier: MIT
// A composite of your own, y = gate(x) * branch(x), entry by entry: docs/extending.md explains it.
#pragma once

#include <stochastic_depth/all.hpp>
#include <utility>
namespace sd = stochastic_depth;
namespace pass = stochastic_depth::pass;

struct Product {  // how the ways through two parts become one, and how gradients part again
    void operator()(const auto& a, const auto& b, auto&& y) const { y = a.cwiseProduct(b); }
    void backpropagate(const auto& a, const auto& b, const auto& dy, auto& da, auto& db) const {
        da = dy.cwiseProduct(b), db = dy.cwiseProduct(a);
    }
};
template <class Gate, class Branch>
class Gated : public sd::LayerBase<Gated<Gate, Branch>, typename Gate::Scalar, Gate, Branch> {
public:
    Gated(Gate gate, Branch branch) : gate_(std::move(gate)), branch_(std::move(branch)) {}
    sd::Index output_size(sd::Index inputs) const { return gate_.output_size(inputs); }

    template <class Memory> struct Record {
        pass::RecordOf<Gate, Memory> gate;
        pass::RecordOf<Branch, Memory> branch;
        pass::RecordedMatrix<typename Gate::Scalar> a, b;
    };
    struct Gradient {
        typename Gate::Gradient gate;
        typename Branch::Gradient branch;
        void set_zero() { gate.set_zero(), branch.set_zero(); }
    };
    void run(auto& batch, auto& record, const auto& mask, const auto& epilogue) const {
        auto a = batch.shared(), b = batch.shared(), y = batch.room(output_size(batch.rows()));
        pass::run(gate_, a, record.gate, mask);
        pass::run(branch_, b, record.branch, mask.behind(gate_));
        y.writable() = a.current().cwiseProduct(b.current());
        if constexpr (y.records) record.a = a.keep(), record.b = b.keep();
        (batch = std::move(y)).apply(epilogue);
    }
    void backpropagate(auto& batch, const auto& record, auto& gradient, const auto& epilogue) const {
        auto da = batch.room(batch.rows()), db = batch.room(batch.rows());
        da.writable() = batch.current().cwiseProduct(record.b.view());
        db.writable() = batch.current().cwiseProduct(record.a.view());
        pass::backpropagate(gate_, da, record.gate, gradient.gate);
        pass::backpropagate(branch_, db, record.branch, gradient.branch);
        da.writable() += db.current();
        (batch = std::move(da)).apply(epilogue);
    }
    void walk(const auto& walk, auto& x, const auto& then, const auto& state, auto&... of) const {
        walk.join(Product{}, pass::Place{gate_, of.gate...}, pass::Place{branch_, of.branch...}, x, then, state);
    }
    static void visit_parts(auto& self, auto&& visit, auto&... others) {
        visit("gate", self.gate_, others.gate...), visit("branch", self.branch_, others.branch...);
    }
    friend auto map_parts(const Gated& of, auto& f) { return ::Gated(f(of.gate_), f(of.branch_)); }

private:
    Gate gate_;
    Branch branch_;
};
