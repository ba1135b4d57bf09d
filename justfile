# A developer's habits. `just` alone lists them.

default:
    @just --list

# What CI runs: tools, formatting, licences, lints, docs, tests.
check:
    .ci/run

# Formats every crate.
fmt:
    cargo fmt --all

# Every test; arguments go to cargo: `just test kill`.
test *args:
    cargo test --workspace {{args}}

# Five synthetic hospitals, three questions: `just demo --keep`.
demo *args:
    cargo run --bin sekisho-sim -- demo {{args}}

# The bounded, noised group-by against plain DataFusion; needs a release build.
bench *args:
    cargo run --release --bin sekisho-sim -- bench query {{args}}

# Licences, banned crates, sources.
deny:
    cargo deny check bans licenses sources
