# Short names for `cargo xtask`. Arguments pass through: `just demo --out runs/mine`.

set positional-arguments

# List the recipes.
default:
    @just --list

# Train, merge and judge the demo adapters end to end, from nothing to the table of results.
demo *args:
    @cargo xtask demo "$@"

# Run every test, the doctests and the examples included.
test *args:
    @cargo xtask test "$@"

# Run a grid of merges and evaluations: by default k and weight for V1 and V2, side by side.
sweep *args:
    @cargo xtask sweep "$@"

# Check formatting, clippy, the documentation and the order of the crates.
lint *args:
    @cargo xtask lint "$@"

# Run the benchmarks.
bench *args:
    @cargo xtask bench "$@"
