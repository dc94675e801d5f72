#include <gtest/gtest.h>

#include <optional>

#include "kernels/rms_norm.hpp"
#include "tests/support/central_difference.hpp"
#include "tests/support/each_target.hpp"
#include "tests/support/guarded.hpp"
#include "tests/support/random.hpp"
#include "tests/support/reference_rms_norm.hpp"
#include "tests/support/tolerances.hpp"

namespace longstrand {
namespace {

using reference::Doubles;

constexpr float kEpsilon = 1e-5F;

struct Case {
  std::int64_t rows, channels, gap;
  double scale;  // of the residual
  const char* reason;
};

const std::vector<Case> kCases = {
    {1, 1, 0, 1, "the smallest"},
    {64, 256, 0, 1, "a chunk of the small models"},
    {3, 64, 0, 1, "whole vectors on every instruction set"},
    {5, 67, 3, 1, "a tail of three, gaps between the rows"},
    {4, 15, 1, 1, "below a vector of AVX-512"},
    {2, 4096, 0, 1, "a long sum"},
    {3, 100, 0, 1e-4, "epsilon outweighs the mean"},
    {3, 100, 0, 1e4, "a residual that has grown"},
};

struct Operands {
  explicit Operands(const Case& c)
      : random(static_cast<std::uint64_t>(c.rows * 10'007 + c.channels)),
        residual({c.rows, c.channels}, c.gap),
        weight({c.channels}) {
    residual.fill([&] { return random.normal(0, c.scale); });
    weight.fill([&] { return random.normal(1, 0.2); });
  }

  /// As the reference takes them, once hidden has been added.
  reference::RmsNormOperands after(Doubles total) const {
    const auto channels = static_cast<std::int64_t>(weight.values().size());
    return {static_cast<std::int64_t>(total.size()) / channels, channels, kEpsilon, std::move(total),
            weight.values()};
  }

  Random random;
  Guarded<float, 2> residual;
  Guarded<float, 1> weight;
  Context context{device_under_test()};
};

void add(const Doubles& from, Doubles& to, double sign = 1) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += sign * from.at(i);
}

enum class Outputs { in_place, apart };

template <class T>
void check_forward(const Case& c, std::optional<Hidden> change, Outputs where) {
  Operands op(c);
  Guarded<T, 2> hidden({c.rows, c.channels}, c.gap + 1);
  hidden.fill([&] { return op.random.normal(0, c.scale); });
  Doubles total = op.residual.values();
  if (change) add(hidden.values(), total, *change == Hidden::add ? 1 : -1);
  Guarded<float, 2> total_apart({c.rows, c.channels}, c.gap + 2);
  Guarded<T, 2> normed_apart({c.rows, c.channels}, c.gap);
  const bool in_place = where == Outputs::in_place;
  Guarded<float, 2>& total_out = in_place ? op.residual : total_apart;
  Guarded<T, 2>& normed = in_place && change ? hidden : normed_apart;
  const Doubles before = op.residual.values();
  rms_norm_forward<T>(op.residual, change ? View<const T, 2>(hidden) : View<const T, 2>(), op.weight,
                      kEpsilon, {total_out, normed}, op.context, change.value_or(Hidden::add));
  expect_near("residual", total_out.values(), total, tolerance::kForward);
  expect_near("normed", normed.values(), reference::rms_norm(op.after(total)), forward_tolerance<T>());
  if (!in_place) {
    EXPECT_EQ(op.residual.values(), before);
  }
}

template <class T>
void check_backward(const Case& c) {
  Operands op(c);
  Guarded<T, 2> d_out({c.rows, c.channels}, c.gap);
  Guarded<float, 2> d_residual({c.rows, c.channels}, c.gap + 2);
  Guarded<T, 2> d_hidden({c.rows, c.channels}, c.gap);
  Guarded<float, 1> d_weight({c.channels});
  d_out.fill([&] { return op.random.normal(0, c.scale); });  // the size of what it is added to below
  d_residual.fill([&] { return op.random.normal(); });
  d_weight.fill([&] { return op.random.normal(); });

  reference::RmsNormGradients expected =
      reference::rms_norm_backward(op.after(op.residual.values()), d_out.values());
  add(d_residual.values(), expected.residual);
  add(d_weight.values(), expected.weight);
  rms_norm_backward<T>(op.residual, op.weight, kEpsilon, {d_out, d_residual, d_hidden, d_weight}, op.context);
  expect_near("d_residual", d_residual.values(), expected.residual, tolerance::kBackward);
  expect_near("d_hidden", d_hidden.values(), expected.residual, backward_tolerance<T>());
  expect_near("d_weight", d_weight.values(), expected.weight, tolerance::kBackward);
}

LONGSTRAND_DEVICE_TEST(RmsNorm, AgreesWithTheReference) {
  on_each_target([] {
    for (const Case& each : kCases) {
      SCOPED_TRACE(each.reason);
      for (const Outputs where : {Outputs::in_place, Outputs::apart}) {
        for (const auto change : {Hidden::add, Hidden::subtract}) {
          check_forward<float>(each, change, where);
          check_forward<bfloat16>(each, change, where);
        }
        check_forward<float>(each, std::nullopt, where);
      }
      check_backward<float>(each);
      check_backward<bfloat16>(each);
    }
  });
}

LONGSTRAND_DEVICE_TEST(RmsNorm, IsGoodToOneMillionthOfEachElement) {
  const Case c{16, 768, 0, 1, ""};
  on_each_target([&] {
    Operands op(c);
    Guarded<float, 2> out({c.rows, c.channels});
    rms_norm_forward<float>(op.residual, {}, op.weight, kEpsilon, {op.residual, out}, op.context);
    const Doubles expected = reference::rms_norm(op.after(op.residual.values()));
    const Doubles actual = out.values();
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(actual[i], expected[i], 1e-6 * std::abs(expected[i]));
    }
  });
}

TEST(RmsNorm, ReferenceBackwardIsTheSlopeOfItsForward) {
  Operands op({3, 5, 0, 1, ""});
  reference::RmsNormOperands operands = op.after(op.residual.values());
  Doubles d_out(15);
  for (double& element : d_out) element = op.random.normal();
  const auto loss = [&] { return dot(reference::rms_norm(operands), d_out); };
  const reference::RmsNormGradients grad = reference::rms_norm_backward(operands, d_out);
  expect_near("d_residual", grad.residual, central_difference(operands.residual, loss),
              tolerance::kDifferences);
  expect_near("d_weight", grad.weight, central_difference(operands.weight, loss), tolerance::kDifferences);
}

LONGSTRAND_DEVICE_TEST(RmsNorm, RefusesOperandsThatDoNotFit) {
  Operands op({3, 5, 0, 1, ""});
  Guarded<float, 2> fits({3, 5});
  Guarded<float, 2> narrow({3, 4});
  Guarded<float, 1> d_weight({5});
  const auto forward = [&](View<const float, 2> hidden, const RmsNormOutput<float>& output) {
    rms_norm_forward<float>(op.residual, hidden, op.weight, kEpsilon, output, op.context);
  };
  EXPECT_THROW(forward(narrow, {op.residual, fits}), std::logic_error);
  EXPECT_THROW(forward(fits, {op.residual, narrow}), std::logic_error);
  EXPECT_THROW(forward(fits, {narrow, fits}), std::logic_error);
  EXPECT_THROW(
      rms_norm_backward<float>(op.residual, op.weight, kEpsilon, {fits, narrow, fits, d_weight}, op.context),
      std::logic_error);
}

}  // namespace
}  // namespace longstrand
