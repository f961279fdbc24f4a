// SPDX-License-Identifier: MIT
#pragma once

#include <stochastic_depth/pass/affine_in_use.hpp>
#include <stochastic_depth/pass/layer_base.hpp>
#include <stochastic_depth/pass/run.hpp>
#include <stochastic_depth/pass/sequence_lengths.hpp>
#include <stochastic_depth/pass/walk.hpp>

/// What the author of a composite needs, by its names: docs/extending.md explains them one by one.
namespace stochastic_depth::pass {

/// run(part, batch, part's record, mask, epilogue): batch = epilogue(part(batch)).
using detail::run;
/// backpropagate(part, batch, part's record, part's gradient, epilogue): the way back.
using detail::backpropagate;
/// RecordOf<Part, Memory>: what a pass leaves of a part.
using detail::RecordOf;
/// Records: the memory of a pass that a way back follows.
using detail::Records;
/// RecordedMatrix<Scalar>: what batch.keep() leaves in a record.
using detail::RecordedMatrix;
/// SequenceLengths: what stands beside a batch of sequences, as batch.lengths().
using detail::SequenceLengths;
/// length_of_sequence(lengths, column, positions): of `positions`, those that are no padding.
using detail::length_of_sequence;
/// followed_by(first, second): one epilogue after another.
using detail::followed_by;
/// HandOn<Epilogue>: how a part passes a gradient on that its composite goes on with.
using detail::HandOn;
/// Place{part, gradients...}: a part on a walk.
using detail::Place;

}  // namespace stochastic_depth::pass
