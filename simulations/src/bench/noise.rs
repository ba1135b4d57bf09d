//! How many samples of exact noise one core makes in a second.

use std::{hint::black_box, time::Instant};

use miette::{IntoDiagnostic, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use sekisho_aggregation::noise::{DiscreteGaussian, DiscreteLaplace, Variance};
use sekisho_protocol::units::MicroRho;
use serde_json::{Map, Value};

use super::print;
use crate::cli::Output;

/// Measures the discrete Gaussian and the discrete Laplace with small and with huge variance, `samples` draws each, on one core,
/// with the generator that a node uses.
///
/// # Errors
/// When a distribution cannot be made.
pub fn noise(samples: u32, output: Output) -> Result<()> {
    let mut figures = Map::new();
    let mut rng = ChaCha20Rng::from_os_rng();
    // The second is that of a count at five rows per patient, in the lattice of weights; the last nears the end of i128.
    for (name, sensitivity, micro_rho) in [
        ("gaussian, variance 1/2", 1, 1_000_000),
        ("gaussian, variance 2^70", 5 << 32, 195_000),
        ("gaussian, variance 2^180", 1 << 90, 500_000),
    ] {
        let rho = MicroRho::try_from(micro_rho).into_diagnostic()?;
        let distribution = DiscreteGaussian::new(&Variance::for_sensitivity(sensitivity, rho).into_diagnostic()?);
        figures.insert(name.into(), per_second(samples, || distribution.sample(&mut rng)));
    }
    for (name, numerator, denominator) in
        [("laplace, scale 1/2", 1, 2), ("laplace, scale 5", 5, 1), ("laplace, scale 2^100", 1_u128 << 100, 1)]
    {
        let distribution = DiscreteLaplace::new(numerator, denominator).into_diagnostic()?;
        figures.insert(name.into(), per_second(samples, || distribution.sample(&mut rng)));
    }
    eprintln!("samples a second on one core:");
    print(&Value::Object(figures), output);
    Ok(())
}

fn per_second(samples: u32, mut sample: impl FnMut() -> i128) -> Value {
    let started = Instant::now();
    for _ in 0..samples {
        black_box(sample());
    }
    (f64::from(samples) / started.elapsed().as_secs_f64()).round().into()
}
