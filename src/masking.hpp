// Masked sequences to train on: some bases are hidden from the model, which is to tell what stood there
// (BERT, Devlin et al. 2019; Caduceus).
#pragma once

#include <cstdint>

#include "src/trainer.hpp"

namespace longstrand {

struct MaskRule {
  double share = 0.15;    // of all A, C, G and T are asked for; nothing else is. Of these:
  double masked = 0.8;    // become [MASK],
  double replaced = 0.1;  // become one of A, C, G and T, drawn evenly, be it the one that stands there,
                          // where BERT and the original code draw from the whole vocabulary;
                          // the rest stays as it is
};

/// `clean` with `read` as the model is to see it, and `read_targets` for what it is asked. What happens to a
/// base depends on seed and position alone: any part of the sequence reads the same, as often as it is read,
/// and another seed masks it anew.
TrainingSequence masked(TrainingSequence clean, const MaskRule& rule, std::uint64_t seed);

}  // namespace longstrand
