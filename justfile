# The same recipes as scripts/test and the command line, for people who have `just`.

# All checks, as in CI.
test:
    scripts/test

# Installs what the tests need and this machine lacks.
setup:
    scripts/setup

# Formats the code.
fmt:
    cargo fmt --all

# Clippy, with warnings as errors.
lint:
    scripts/test format lint

# The documentation of the code, with warnings as errors.
docs:
    scripts/test docs

# Licences, sources, crates that we do without.
deny:
    scripts/test deny

# A short fuzz run.
fuzz:
    scripts/test fuzz

# Kills a broker 200 times under load, and looks for what it lost. Takes some minutes.
chaos:
    EXOCOM_CHAOS_KILLS=200 cargo test --test chaos kills -- --nocapture

# Kills a broker 100 times under load, and adds up what its audit log says. Takes some minutes.
audit-kills:
    EXOCOM_AUDIT_KILLS=100 cargo test --test broker after_a_kill_the_counts_still_add_up -- --nocapture

# The todo application on a broker of its own: http://127.0.0.1:3000
demo:
    cargo run --release -- demo

# A million lives of the store, and every bit of a mebibyte of its log: some quarter of an hour.
sim-nightly:
    EXOCOM_SIM_SEEDS=1000000 EXOCOM_SIM_BITS=all scripts/test sim

# Differences of policies against trying every name, on a million random pairs: some minutes.
diff-nightly:
    EXOCOM_DIFF_PAIRS=1000000 cargo test --release --lib review::tests::brute_force

# What the detectors of alarms are worth, into docs/alarms.md: some minutes. EXOCOM_NAB names the folder of the NAB data.
alarms-report: alarms-report-metrics
    cargo test --profile sim --test alarms -- --ignored report::of_counts --nocapture

# The same of the detector of metrics alone: a minute.
alarms-report-metrics:
    cargo test --profile sim --test alarms -- --ignored report::of_metrics --nocapture

# 5,000 handshakes begun and not finished: what others notice, and how long a newcomer takes.
flood:
    EXOCOM_FLOOD_CONNECTIONS=5000 cargo test --release --test broker hostile::flood -- --nocapture

# Changes of authority with 10,000 connections open, each with a certificate of its own: how long until all know.
authority-nightly:
    EXOCOM_AUTHORITY_CONNECTIONS=9500 cargo test --release --test broker live::many -- --nocapture

# A thousand policies applied under load: nothing allowed is lost, nothing old decides.
swaps-nightly:
    EXOCOM_POLICY_SWAPS=1000 cargo test --release --test broker live::swaps -- --nocapture

# Changes identity and policy in every small way, and says what no test notices: an hour or two. `just mutants FILE...`
mutants *FILES:
    scripts/mutants {{FILES}}
