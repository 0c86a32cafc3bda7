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

# Which stage makes V1 and V2 differ? All phases share runs/phases and write a page of report there.
phase1 *args:
    @cargo xtask phase 1 "$@"

# Does V1 come out as the study reported it?
phase2 *args:
    @cargo xtask phase 2 "$@"

# What do more Fisher samples change?
phase3 *args:
    @cargo xtask phase 3 "$@"

# What does a safety weight of 0.7 to 0.9 change?
phase4 *args:
    @cargo xtask phase 4 "$@"

# Check formatting, clippy, the documentation and the order of the crates.
lint *args:
    @cargo xtask lint "$@"

# Run Criterion's benchmarks of the merges; or, beside PyTorch, PEFT and transformers: just bench fisher, merge, eval.
bench *args:
    @cargo xtask bench "$@"
