// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <exception>
#include <string>

#include <stochastic_depth/io/gzip.hpp>
#include <stochastic_depth/io/idx.hpp>
#include <stochastic_depth/training/dataset.hpp>

#include "usage_error.hpp"

namespace common {

namespace sd = stochastic_depth;

/// Of Fashion-MNIST.
inline constexpr sd::Index classes = 10;

struct Data {
    sd::Dataset<float> train;
    sd::Dataset<float> test;
};

namespace detail {

/// The first `count` images of a part of the data set: "train" or "t10k".
[[nodiscard]] inline sd::Dataset<float> load_part(const std::string& folder,
                                                  const std::string& part, sd::Index count) {
    const auto read = [&](const std::string& name) {
        const std::string path = folder + "/" + part + name;
        return sd::parse_idx(sd::read_gzip(path), path);
    };
    const sd::Dataset<float> all{sd::idx_images<float>(read("-images-idx3-ubyte.gz")),
                                 sd::idx_labels(read("-labels-idx1-ubyte.gz")), classes};
    if (count > all.size())
        throw UsageError(folder + ": " + std::to_string(count) + " images of " + part +
                         " are asked for, and it has " + std::to_string(all.size()));
    return all.head(count);
}

}  // namespace detail

/// Reads the first images of both parts, and shifts and scales all pixels to mean 0 and variance 1
/// over the training set.
///
/// \param options  A struct that says what to read: data (a folder), train and test (numbers of
///                 images).
/// \throws UsageError  if the files are not there, or not what they should be.
template <class Options>
[[nodiscard]] Data load_data(const Options& options) {
    try {
        const auto train = detail::load_part(options.data, "train", options.train);
        const auto test = detail::load_part(options.data, "t10k", options.test);
        if (test.features() != train.features())
            throw UsageError(
                options.data + ": test images must have " + std::to_string(train.features()) +
                " pixels as the training images, got " + std::to_string(test.features()));
        const float mean = train.inputs().mean();
        const float variance = (train.inputs().array() - mean).square().mean();
        const float scale = variance > 0.0f ? 1.0f / std::sqrt(variance) : 1.0f;
        const auto standardised = [&](const sd::Dataset<float>& part) {
            return sd::Dataset<float>{(part.inputs().array() - mean) * scale, part.labels(),
                                      classes};
        };
        return {standardised(train), standardised(test)};
    } catch (const UsageError&) {
        throw;
    } catch (const std::exception& error) {
        throw UsageError(std::string(error.what()) +
                         " (Debian has the data set in dataset-fashion-mnist; --data DIR names "
                         "another folder)");
    }
}

}  // namespace common
