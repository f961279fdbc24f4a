// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <stochastic_depth/detail/check.hpp>
#include <stochastic_depth/io/json_reader.hpp>
#include <stochastic_depth/io/little_endian.hpp>
#include <stochastic_depth/io/safetensors_header.hpp>
#include <stochastic_depth/io/safetensors_metadata.hpp>
#include <stochastic_depth/io/sealed_file.hpp>
#include <stochastic_depth/io/tensor_copy.hpp>
#include <stochastic_depth/io/tensor_names.hpp>
#include <stochastic_depth/io/whole_file.hpp>
#include <stochastic_depth/pass/folds.hpp>
#include <stochastic_depth/pass/tensor_form.hpp>
#include <stochastic_depth/text/utf8.hpp>
#include <stochastic_depth/types.hpp>

/// Networks in safetensors files, as Python's package of that name reads and writes them. Needs
/// POSIX, for which reason it is not part of all.hpp.
///
/// Format: the length of the header (8 bytes, little-endian), the header, a JSON object with dtype,
/// shape and place of each tensor by its name, and the tensors' numbers, row-major, little-endian,
/// without a gap.
namespace stochastic_depth {

/// What load_safetensors does with tensors that the network has no place for.
enum class ExtraTensors { refuse, ignore };

namespace detail {

template <class Number, class Scalar>
void read_little(const std::uint8_t* bytes, const TensorForm& form, Scalar* to) {
    read_tensor<Number>(bytes, form, to, std::endian::little);
}
/// A reader of some type of numbers; null if they don't fit a Scalar.
template <class Scalar>
[[nodiscard]] auto reader_of(TensorType type) {
    using Read = void (*)(const std::uint8_t*, const TensorForm&, Scalar*);
    switch (type) {
        case TensorType::f16:
            return Read{read_little<HalfFloat, Scalar>};
        case TensorType::bf16:
            return Read{read_little<BrainFloat, Scalar>};
        case TensorType::f32:
            return Read{read_little<float, Scalar>};
        case TensorType::f64:
            if constexpr (std::is_same_v<Scalar, double>) return Read{read_little<double, Scalar>};
            return Read{nullptr};
        default:
            return Read{nullptr};
    }
}

/// Whether a name is that of PyTorch's count of batches, which nothing here depends on.
[[nodiscard]] inline bool is_count_of_batches(std::string_view name) {
    constexpr std::string_view count = "num_batches_tracked";
    if (!name.ends_with(count)) return false;
    name.remove_suffix(count.size());
    return name.empty() || name.ends_with('.');
}

/// A network's tensors in a file.
class SafetensorsLoad {
public:
    SafetensorsLoad(std::string_view who, SafetensorsFile& file, const TensorNames& names)
        : who_(who), file_(&file), names_(&names) {}

    /// \throws std::runtime_error  unless the file has each of a network's tensors.
    template <class Network>
    void check(const Network& network, ExtraTensors extra) const {
        for_each_tensor(network, [&]<class Number>(const std::string& name, const TensorForm& form,
                                                   const Number*) {
            const std::string in_file = name_in_file(who_, *names_, name);
            const std::string known_as = in_file == name ? "" : message(" (", name, ")");
            TensorEntry* const entry = file_->find(in_file);
            if (!entry)
                throw std::runtime_error(message("the file has no tensor ", in_file, known_as, " ",
                                                 text_of_shape(form.shape)));
            if (!reader_of<Number>(entry->type))
                throw std::runtime_error(message(
                    in_file, known_as, " must be of ",
                    std::is_same_v<Number, double> ? "F16, BF16, F32 or F64" : "F16, BF16 or F32",
                    ", found ", name_of_type(entry->type).name));
            const std::vector<std::uint64_t> shape = SafetensorsFile::shape(*entry);
            const bool is_same = std::equal(
                shape.begin(), shape.end(), form.shape.begin(), form.shape.end(),
                [](std::uint64_t a, Index b) { return a == static_cast<std::uint64_t>(b); });
            if (!is_same)
                throw std::runtime_error(message(in_file, known_as, " must be ",
                                                 text_of_shape(form.shape), ", found ",
                                                 text_of_shape(shape)));
            entry->is_used = true;
        });
        if (extra == ExtraTensors::ignore) return;
        for (const TensorEntry& entry : file_->tensors())
            if (!entry.is_used && !is_count_of_batches(entry.name))
                throw std::runtime_error(
                    message("the network has no place for the tensor ", entry.name, " ",
                            text_of_shape(SafetensorsFile::shape(entry))));
    }

    template <class Network>
    void write(Network& network) const {
        for_each_tensor(network, [&]<class Number>(const std::string& name, const TensorForm& form,
                                                   Number* first) {
            const TensorEntry& entry = *file_->find(name_in_file(who_, *names_, name));
            reader_of<Number>(entry.type)(file_->data(entry), form, first);
        });
    }

private:
    std::string_view who_;
    SafetensorsFile* file_;
    const TensorNames* names_;
};

/// \throws std::invalid_argument  unless load_safetensors would take a tensor's name.
inline void check_name(std::string_view name) {
    for_each_character("save_safetensors: names", name, [](std::string_view) {});
    if (name == SafetensorsFile::metadata_name || name.size() > SafetensorsFile::most_letters)
        refuse("save_safetensors: names must have at most ", SafetensorsFile::most_letters,
               " bytes and be no ", SafetensorsFile::metadata_name, ", got ", beginning(name));
}

/// The bytes of a file.
/// \throws std::invalid_argument  as save_safetensors does.
template <class Network>
[[nodiscard]] std::vector<std::uint8_t> safetensors_bytes(
    const Network& network, const TensorNames& names,
    const Matrix<typename Network::Scalar>& self_test) {
    // In the order in which Python writes them: the widest numbers first, then by name.
    struct Place {
        TensorForm form;
        std::size_t bytes = 0;
        std::size_t begin = 0;
    };
    std::map<std::pair<int, std::string>, Place> places;
    const auto for_each = [&](const auto& visit) {
        for_each_tensor(
            network, [&]<class Number>(const std::string& name, const TensorForm& form,
                                       const Number* first) {
                const std::string in_file = name_in_file("save_safetensors", names, name);
                visit(std::pair{-static_cast<int>(sizeof(Number)), in_file}, form, first);
            });
    };
    for_each([&]<class Number>(const auto& key, const TensorForm& form, const Number*) {
        Place place{form, sizeof(Number)};
        for (const Index size : form.shape) place.bytes *= static_cast<std::size_t>(size);
        check_name(key.second);
        if (form.shape.size() > SafetensorsFile::most_dimensions)
            refuse("save_safetensors: ", key.second, " must have at most ",
                   SafetensorsFile::most_dimensions, " dimensions, got ", form.shape.size());
        const std::pair other{key.first == -8 ? -4 : -8, key.second};
        if (places.contains(other) || !places.emplace(key, std::move(place)).second)
            refuse("save_safetensors: tensors must have different names, got ", key.second,
                           " twice");
    });
    if (places.size() > SafetensorsFile::most_tensors)
        refuse("save_safetensors: tensors must be at most ", SafetensorsFile::most_tensors,
               ", got ", places.size());
    std::string header = "{\"__metadata__\":{\"format\":\"pt\"";
    const auto add_metadata = [&](std::string_view key, const std::string& value) {
        header += message(",", json_string(key), ":", json_string(value));
    };
    if (const Eigen::VectorXd p = survival_probabilities(network); p.size() > 0)
        add_metadata(survival_key, json_numbers(p));
    if (self_test.size() > 0)
        add_metadata(self_test_key, self_test_of(network, self_test));
    header += '}';
    std::size_t end = 0;
    for (auto& [key, place] : places) {
        place.begin = end;
        end += place.bytes;
        std::string shape;
        for (const Index size : place.form.shape)
            shape += message(shape.empty() ? "" : ",", size);
        header += message(",", json_string(key.second), ":{\"dtype\":\"",
                                  key.first == -8 ? "F64" : "F32", "\",\"shape\":[", shape,
                                  "],\"data_offsets\":[", place.begin, ",", end, "]}");
    }
    header += '}';
    while (header.size() % 8 != 0) header += ' ';
    if (header.size() > SafetensorsFile::most_header_bytes)
        refuse("save_safetensors: header must have at most ",
                       SafetensorsFile::most_header_bytes, " bytes, got ", header.size());
    std::vector<std::uint8_t> bytes(8 + header.size() + end);
    store_little(bytes.data(), static_cast<std::uint64_t>(header.size()));
    std::copy(header.begin(), header.end(), bytes.begin() + 8);
    std::uint8_t* const data = bytes.data() + 8 + header.size();
    for_each([&](const auto& key, const TensorForm& form, const auto* first) {
        write_tensor(form, first, data + places.find(key)->second.begin);
    });
    return bytes;
}

/// Gives a network what the bytes of a file hold, which are changed in reading.
/// \throws std::runtime_error  saying what is wrong; the network is unchanged then.
template <class Network>
void read_safetensors(std::span<std::uint8_t> bytes, Network& network, const TensorNames& names,
                      ExtraTensors extra) {
    SafetensorsFile file{bytes};
    const SafetensorsLoad load{"load_safetensors", file, names};
    load.check(network, extra);
    for (const auto& [key, value] : file.metadata()) {
        try {
            if (key == survival_key) check_survival(network, value);
            if (key == self_test_key) {
                const auto self_test = SelfTest::parse(value);
                Network loaded = network;
                load.write(loaded);
                self_test.check(loaded);
            }
        } catch (const std::runtime_error& error) {
            throw std::runtime_error(message("metadata ", key, ": ", error.what()));
        }
    }
    load.write(network);
}

}  // namespace detail

/// Writes a network into a safetensors file: parameters and what layers keep beside them, such as
/// running statistics, under the names and in the shapes that PyTorch has for them, behind their
/// paths through the network:
///
///     0.weight                Linear [outputs, inputs], Conv2d [channels, input channels, rows,
///                             columns], Embedding [vocabulary, width], normalisations [features]
///     0.bias, 0.running_mean, 0.running_var
///     1.0.branch.0.in_proj_weight, .in_proj_bias, .out_proj.weight, .out_proj.bias
///
/// Rows of these are inputs and channels in our order. A layer of one's own has the names that it
/// gives its parameters, or those of its member `tensor_form` (TensorForm). Metadata hold the
/// survival probabilities, "[0.9,0.8]".
///
///     model.load_state_dict(safetensors.torch.load_file("network.safetensors"))  # in Python
///
/// The file is replaced in one step, as save_parameters does.
///
/// \param path       A std::filesystem::path does as well.
/// \param names      What tensors are called in the file, if not as said above.
/// \param self_test  Inputs, [features x samples], that go into the metadata with the network's
///                   outputs at full depth; load_safetensors then checks that it gets the same.
///                   Empty: none.
/// \throws std::invalid_argument  if two tensors have the same name, or one that a file cannot hold,
///                                or a self-test isn't finite.
/// \throws std::runtime_error     naming the file and the reason, if it cannot be written; the old
///                                file is untouched then.
template <class Network>
void save_safetensors(const std::string& path, const Network& network,
                      const TensorNames& names = {},
                      const Matrix<typename Network::Scalar>& self_test = {}) {
    detail::replace_file("save_safetensors", path,
                         detail::safetensors_bytes(network, names, self_test));
}

/// Reads a network's parameters from a safetensors file, and what its layers keep beside them,
/// whoever wrote it; names and shapes as save_safetensors has them.
///
///     load_safetensors("bert.safetensors", network,
///                      {{"encoder.layer.*.mlp.fc1.weight", "0.*.branch.0.weight"}});
///
/// The file is read whole and checked before anything changes. It takes as much memory as the file
/// has bytes, and at most 64 MiB more, whatever the file says; with a self-test, a copy of the
/// network too, and what 16 samples take on their way through it.
///
/// \param path     A std::filesystem::path does as well.
/// \param network  Of the shapes in the file. Numbers may be F16, BF16 or F32, of a network of double
///                 F64 too. Survival probabilities and a self-test in the metadata must be the
///                 network's; what else is there is ignored, and so is PyTorch's
///                 num_batches_tracked.
/// \param names    What tensors are called in the file; several may have the same.
/// \throws std::invalid_argument  if names have other numbers of wildcards.
/// \throws std::runtime_error     naming the file and what is wrong, if it cannot be read, is cut
///                                short or damaged, or is not this network's; the network is
///                                unchanged then.
template <class Network>
void load_safetensors(const std::string& path, Network& network, const TensorNames& names = {},
                      ExtraTensors extra = ExtraTensors::refuse) {
    const detail::WholeFile whole("load_safetensors", path);
    try {
        detail::read_safetensors(whole.bytes(), network, names, extra);
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(detail::message("load_safetensors: ", path, ": ", error.what()));
    }
}

}  // namespace stochastic_depth
