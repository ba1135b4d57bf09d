//! Issue 3's figures of merit: the noise of a count, and the bias of a mean.

use sekisho_sim::utility::figures;

#[tokio::test]
async fn a_count_has_a_standard_deviation_of_at_most_36_and_a_mean_is_unbiased_where_values_do_not_depend_on_rows() {
    let figures = figures(3_000, 3).await.unwrap();
    assert!((figures.epsilon - 1.0).abs() < 1e-12 && (figures.delta - 1e-7).abs() < 1e-19);
    let five = figures.noise.iter().find(|n| n.rows_per_patient == 5).unwrap();
    assert!(five.count <= 36.0, "{five:?}");
    // Noise is linear in the rows of a patient, and a count of patients has that of one row.
    let one = figures.noise.iter().find(|n| n.rows_per_patient == 1).unwrap();
    assert!((five.count / one.count - 5.0).abs() < 0.01 && (five.patients - one.count).abs() < 0.01, "{figures:?}");
    for bias in &figures.bias {
        if bias.values == "independent" {
            assert!(bias.bias.abs() < 0.005, "{bias:?}");
        }
        if bias.rows_over_bound < 0.01 {
            assert!(bias.bias.abs() < 1e-6, "{bias:?}");
        }
        // Where values rise with rows, patients with many count too little.
        if bias.values == "higher with more rows" && bias.rows_over_bound > 0.5 {
            assert!(bias.bias < -0.005, "{bias:?}");
        }
    }
    // A bound that cuts nothing leaves the noise alone; one at the 90th percentile takes a part of the mean.
    let of = |patients: usize, bound: &str| {
        figures.skewed.iter().find(|e| e.patients == patients && e.bound == bound && e.statistic == "mean").unwrap()
    };
    assert!(of(1_000, "90 %").bias < -0.1, "{:?}", of(1_000, "90 %"));
    assert!(of(1_000, "99.999 %").bias.abs() < of(1_000, "99.999 %").error, "{:?}", of(1_000, "99.999 %"));
    assert!(of(1_000, "99.9 %").error < of(100, "99.9 %").error);
}
