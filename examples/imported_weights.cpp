// SPDX-License-Identifier: MIT
// A network read from a text: how deep it is, its survival probabilities, and weights that another
// program wrote row by row. A file does as well: std::ifstream in place of std::istringstream.
#include <stochastic_depth/all.hpp>

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>
namespace sd = stochastic_depth;

const char* const text = R"(
survival 2  0.8 0.5
0.weights 2 3        1 0 -1   0 2 0
0.bias 2 1           0.5 -1
1.0.branch.0.weights 2 2  0 1  -1 0
1.0.branch.0.bias 2 1     0 0
1.1.branch.0.weights 2 2  0.5 0  0 0.5
1.1.branch.0.bias 2 1     1 1
2.weights 1 2        1 2
2.bias 1 1           0.25
)";

using Source = std::map<std::string, sd::RowMajorMatrix<float>>;
using Branch = sd::Sequential<sd::Linear<float>, sd::ReLU<float>>;
using Block = sd::StochasticDepth<sd::Residual<Branch>>;
using Network = sd::Sequential<sd::Linear<float>, sd::Stack<Block>, sd::Linear<float>>;

Network read_network(std::istream& in) {
    std::string name;
    sd::Index depth = 0, rows = 0, columns = 0;
    if (!(in >> name >> depth) || name != "survival") throw std::runtime_error("no survival");
    std::vector<double> p(static_cast<std::size_t>(depth));
    for (double& p_l : p) in >> p_l;
    Source source;
    while (in >> name >> rows >> columns) {
        std::vector<float> numbers(static_cast<std::size_t>(rows * columns));
        for (float& number : numbers) in >> number;
        source[name] = Eigen::Map<const sd::RowMajorMatrix<float>>{numbers.data(), rows, columns};
    }
    // Layers of the right sizes; their numbers come from the source, all of them or none.
    const auto layer = [&](const std::string& path) {
        const auto& weights = source.at(path + ".weights");
        return sd::zero_linear<float>(weights.cols(), weights.rows());
    };
    std::vector<Block> blocks;
    for (std::size_t l = 0; l < p.size(); ++l)
        blocks.emplace_back(sd::Residual{Branch{layer("1." + std::to_string(l) + ".branch.0"), {}}},
                            sd::SurvivalProbability{p[l]});
    Network network{layer("0"), sd::Stack{blocks}, layer("2")};
    sd::assign_parameters(network, source);
    return network;
}

int main() {
    std::istringstream in{text};
    const Network network = read_network(in);
    sd::for_each_parameter(network, [](const std::string& path, const auto& matrix) {
        std::printf("%-22s [%td x %td]\n", path.c_str(), matrix.rows(), matrix.cols());
    });
    // By hand: no layer (-1.5, 3), block 0 (1.5, 4.5), block 1 (-1.25, 5.5), both (3.25, 7.75).
    const sd::Matrix<float> x{{1}, {2}, {3}};
    const float all = network(x)(0, 0), none = network(x, sd::SurvivalMask::none(2))(0, 0);
    const double mean = sd::ExactExpectation{}(network, x).mean(0, 0);
    std::printf("full depth %g (19), no layer %g (4.75), f_SD %g (13.375)\n", all, none, mean);
    return all == 19 && none == 4.75F && std::abs(mean - 13.375) < 1e-5 ? 0 : 1;
}
