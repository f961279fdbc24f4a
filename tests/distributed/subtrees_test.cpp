// SPDX-License-Identifier: MIT
#include <stochastic_depth/distributed/finished_subtrees.hpp>
#include <stochastic_depth/distributed/subtrees.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <vector>

#include <stochastic_depth/random/philox.hpp>
#include <stochastic_depth/random/uniform.hpp>

#include "support/catch.hpp"
#include "support/laws.hpp"

namespace {

using namespace stochastic_depth;
using namespace stochastic_depth::detail;

/// Layers 1 and 2 stand inside layer 0, layer 4 inside layer 3.
const std::vector<Index> inside{2, 0, 0, 1, 0, 0};

template <Sweep sweep = Sweep::moments, class Law>
std::vector<std::vector<bool>> prefixes(const Law& law, const std::vector<Index>& layers_inside,
                                        Index prefix_layers) {
    const Subtrees<double, sweep, Law> subtrees(law, layers_inside, prefix_layers);
    std::vector<std::vector<bool>> all;
    for (std::uint64_t k = 0; k < subtrees.count(); ++k) all.push_back(subtrees.way_to(k).bits);
    return all;
}

struct Independent {
    Eigen::VectorXd p;
    Eigen::Ref<const Eigen::VectorXd> probabilities{p};
    IndependentBits law{probabilities};
};

TEST_CASE("subtrees are numbered as the tree is walked, and always-kept layers don't branch") {
    const Independent three{Eigen::Vector3d(0.5, 1, 0.25)};
    using Bits = std::vector<std::vector<bool>>;
    const std::vector<Index> none(3, 0);
    CHECK(prefixes(three.law, none, 0) == Bits{{}});
    CHECK(prefixes(three.law, none, 1) == Bits{{true}, {false}});
    CHECK(prefixes(three.law, none, 2) == Bits{{true, true}, {false, true}});
    // The last layer is in no prefix.
    CHECK(prefixes(three.law, none, 3) == prefixes(three.law, none, 2));
    CHECK(prefixes<Sweep::derivatives>(three.law, none, 2) ==
          Bits{{true, true}, {true, false}, {false, true}, {false, false}});
}

TEST_CASE("what stands inside a skipped layer is in one subtree") {
    const Independent six{Eigen::VectorXd::Constant(6, 0.5)};
    using Bits = std::vector<std::vector<bool>>;
    CHECK(prefixes(six.law, inside, 1) == Bits{{true}, {false, false, false}});
    CHECK(prefixes(six.law, inside, 2) == Bits{{true, true}, {true, false}, {false, false, false}});
    CHECK(prefixes(six.law, inside, 3).size() == 5);
    CHECK(prefixes(six.law, inside, 4).size() == 10);
    CHECK(prefixes(six.law, inside, 5).size() == 15);
    const Subtrees<double, Sweep::moments, IndependentBits> subtrees(six.law, inside, 4);
    CHECK(subtrees.way_to(9).layers == 1);
    CHECK(subtrees.way_to(8).layers == 2);
}

TEST_CASE("a law that rules prefixes out has no subtrees for them") {
    const auto law = LayerCountLaw::exactly(6, 2);
    CHECK(prefixes(law, std::vector<Index>(6, 0), 3).size() == 7);
    for (const auto& bits : prefixes(law, std::vector<Index>(6, 0), 5))
        CHECK(std::count(bits.begin(), bits.end(), true) <= 2);
}

template <Sweep sweep>
class AnyOrder {
public:
    using Finished = FinishedSubtrees<sweep, IndependentBits, float>;

    explicit AnyOrder(Index prefix_layers)
        : subtrees_(six_.law, inside, prefix_layers), finished_(empty()) {
        Philox random{3};
        for (std::uint64_t k = 0; k < finished_.count(); ++k) {
            std::vector<float> numbers(shape_.size(finished_.columns_of(k),
                                                   subtrees_.way_to(k % subtrees_.count()).layers));
            for (float& number : numbers) number = uniform<float>(random, -1.0F, 1.0F);
            numbers_.push_back(numbers);
        }
    }

    Finished empty() const { return {subtrees_, shape_, 5, 2}; }
    std::uint64_t count() const { return finished_.count(); }
    void add(Finished& to, std::uint64_t k) const { to.add(k, numbers_[k]); }

    std::vector<std::vector<float>> in_order() const {
        Finished all = empty();
        for (std::uint64_t k = 0; k < count(); ++k) add(all, k);
        return groups_of(all);
    }
    static std::vector<std::vector<float>> groups_of(Finished& finished) {
        std::vector<std::vector<float>> groups;
        finished.for_each_group([&](Index first, Index columns, const std::vector<float>& numbers) {
            CHECK(first == 2 * static_cast<Index>(groups.size()));
            CHECK(columns == (first == 4 ? 1 : 2));
            groups.push_back(numbers);
        });
        return groups;
    }

private:
    Independent six_{Eigen::VectorXd::LinSpaced(6, 0.3, 0.8)};
    Subtrees<float, sweep, IndependentBits> subtrees_;
    NodeShape<sweep, float> shape_{3};
    Finished finished_;
    std::vector<std::vector<float>> numbers_;
};

template <Sweep sweep>
void check_any_order() {
    Philox random{4};
    for (Index prefix_layers = 0; prefix_layers <= 5; ++prefix_layers) {
        const AnyOrder<sweep> sums(prefix_layers);
        const auto expected = sums.in_order();
        REQUIRE(expected.size() == 3);
        std::vector<std::uint64_t> order(sums.count());
        std::iota(order.begin(), order.end(), std::uint64_t{0});
        for (int again = 0; again < 10; ++again) {
            for (std::size_t k = order.size(); k > 1; --k)
                std::swap(order[k - 1], order[random() % k]);
            auto first = sums.empty();
            const std::size_t half = order.size() / 2;
            for (std::size_t k = 0; k < half; ++k) sums.add(first, order[k]);
            CHECK(first.finished() == half);
            // Another run goes on from there.
            auto second = sums.empty();
            for (const auto& [number, node] : first.nodes()) second.restore(number, node);
            CHECK(second.finished() == half);
            std::vector<std::uint64_t> left;
            for (std::uint64_t k = 0; (k = second.next_unfinished(k)) < second.count(); ++k)
                left.push_back(k);
            std::vector<std::uint64_t> rest(order.begin() + static_cast<std::ptrdiff_t>(half),
                                            order.end());
            std::sort(rest.begin(), rest.end());
            CHECK(left == rest);
            for (std::size_t k = half; k < order.size(); ++k) sums.add(second, order[k]);
            CHECK(AnyOrder<sweep>::groups_of(second) == expected);
        }
    }
}

TEST_CASE("finished subtrees combine to the same bits in any order, and in two runs") {
    check_any_order<Sweep::moments>();
    check_any_order<Sweep::derivatives>();
}

TEST_CASE("what is no node of the tree is not taken from a file") {
    const AnyOrder<Sweep::moments> sums(4);
    auto finished = sums.empty();
    sums.add(finished, 2);
    const auto refuses = [&](std::uint64_t first, std::uint64_t count, std::size_t numbers) {
        CHECK_THROWS_AS(finished.restore(first, {count, std::vector<float>(numbers)}),
                        std::runtime_error);
    };
    refuses(2, 1, 12);   // is there already
    refuses(0, 8, 12);   // the layer kept, subtree 2 with it
    refuses(0, 3, 12);   // no node
    refuses(30, 1, 12);  // past the end
    refuses(0, 1, 11);   // not its size
    refuses(29, 1, 12);  // the last group has one column
    refuses(3, ~std::uint64_t{0}, 12);
    finished.restore(8, {2, std::vector<float>(12)});
    CHECK(finished.finished() == 3);
}

}  // namespace
