// SPDX-License-Identifier: MIT
#pragma once

#include <map>
#include <string>
#include <string_view>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/training/parameters.hpp>
#include <stochastic_depth/types.hpp>

namespace stochastic_depth {

/// As most other frameworks keep matrices. Eigen::Map<const RowMajorMatrix<float>>{data, m, n}
/// reads theirs in place.
template <class Scalar>
using RowMajorMatrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Gives a network the parameters that are listed by their paths, and what its layers keep beside
/// them, such as batch statistics ("1.running_mean").
///
///     std::map<std::string, RowMajorMatrix<float>> weights = ...;  // "0.weights", ...
///     assign_parameters(network, weights);
///
/// All or nothing: the list must have every path of the network, each with a matrix of its shape
/// (vectors: one column), and no other.
///
/// \param source  A range of pairs of a path and an Eigen matrix or map, row-major or not, of any
///                scalar: a std::map, a std::vector of pairs. for_each_parameter tells the paths.
/// \throws std::invalid_argument  naming the path, if one is missing, unknown, twice there, or of
///                                another shape; the network is unchanged then.
template <class Network, class Source>
void assign_parameters(Network& network, const Source& source) {
    using Given = decltype(&source.begin()->second);
    std::map<std::string_view, Given> given;
    for (const auto& pair : source)
        if (!given.emplace(pair.first, &pair.second).second)
            detail::refuse("assign_parameters: source must have each path once, got ", pair.first,
                           " twice");
    const auto visit = [&](const auto& with_each) {
        detail::visit_parameters(network, detail::WithPaths{with_each});
        detail::visit_state(network, detail::WithPaths{with_each});
    };
    std::map<std::string_view, Given> unknown = given;
    visit([&](const std::string& path, const auto& matrix) {
        const auto found = given.find(path);
        if (found == given.end())
            detail::refuse("assign_parameters: source must have ", path, " [", matrix.rows(), " x ",
                           matrix.cols(), "], got none");
        const auto& numbers = *found->second;
        if (numbers.rows() != matrix.rows() || numbers.cols() != matrix.cols())
            detail::refuse("assign_parameters: ", path, " must be [", matrix.rows(), " x ",
                           matrix.cols(), "], got [", numbers.rows(), " x ", numbers.cols(), "]");
        unknown.erase(path);
    });
    if (!unknown.empty())
        detail::refuse("assign_parameters: source must have paths of the network alone, got ",
                       unknown.begin()->first);
    visit([&]<class Entries>(const std::string& path, Entries& matrix) {
        const auto& numbers = *given.find(path)->second;
        for (Index j = 0; j < matrix.cols(); ++j)
            for (Index i = 0; i < matrix.rows(); ++i)
                matrix(i, j) = static_cast<typename Entries::Scalar>(numbers(i, j));
    });
}

}  // namespace stochastic_depth
