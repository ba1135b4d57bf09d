//! Code lists of Japanese flavour: ICD-10, DPC, ATC with YJ, JLAC10.
//!
//! Promises: codes have the form of the real systems, most of them exist. Not a terminology: meanings and
//! figures are rough, and a real source holds thousands.

use super::stream::Draw;

/// ICD-10 codes, the most frequent first; none of diabetes.
pub(super) const ICD10: &[&str] = &[
    "I10", "E78.5", "J06.9", "K21.0", "M54.5", "J30.4", "K05.3", "I20.9", "N18.9", "I48.9", "K29.5", "J45.9", "M17.1",
    "I50.0", "J18.9", "H25.9", "F32.9", "G47.0", "I63.9", "M81.0", "K59.0", "N40", "E03.9", "E79.0", "C34.9", "C16.9",
    "C18.9", "C50.9", "C61", "D50.9", "G30.9", "H40.9", "I21.9", "J44.9", "K80.2", "L20.9", "N39.0", "S72.0", "B18.1",
    "G20",
];

/// ICD-10 codes of diabetes and its complications.
pub(super) const DIABETIC_ICD10: &[&str] = &["E11.9", "E11.9", "E11.9", "E11.2", "E11.3", "E11.4", "E14.9"];

/// DPC codes with a main diagnosis.
pub(super) const STAYS: &[(&str, &str)] = &[
    ("050050xx99100x", "I20.9"),
    ("050050xx02000x", "I20.9"),
    ("050130xx9900xx", "I50.0"),
    ("050030xx97000x", "I21.9"),
    ("040080x099x0xx", "J18.9"),
    ("040081xx99x0xx", "J69.0"),
    ("040040xx99040x", "C34.9"),
    ("040040xx97x0xx", "C34.9"),
    ("060020xx02xxxx", "C16.9"),
    ("060035xx010x0x", "C18.9"),
    ("060100xx01xxxx", "K63.5"),
    ("060335xx02000x", "K80.2"),
    ("010060x2990401", "I63.9"),
    ("010230xx99x00x", "G40.9"),
    ("020110xx97xxx0", "H25.9"),
    ("110280xx9900xx", "N18.9"),
    ("110310xx99xxxx", "N39.0"),
    ("110080xx991xxx", "C61"),
    ("160800xx01xxxx", "S72.0"),
    ("070230xx01xxxx", "M17.1"),
    ("080010xxxx0xxx", "L03.1"),
];

/// DPC codes of stays for diabetes.
pub(super) const DIABETIC_STAYS: &[(&str, &str)] = &[
    ("100070xx99x000", "E11.9"),
    ("100070xx99x100", "E11.9"),
    ("100071xx99x100", "E11.2"),
    ("100040xxxxx00x", "E11.1"),
];

/// A drug: ATC and YJ code, and what is taken a day in hundredths of its unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drug {
    pub(super) atc: &'static str,
    pub(super) yj: &'static str,
    pub(super) daily_hundredths: i64,
}

const fn drug(atc: &'static str, yj: &'static str, daily_hundredths: i64) -> Drug {
    Drug { atc, yj, daily_hundredths }
}

/// Drugs, the most frequent first; none for diabetes.
pub(super) const DRUGS: &[Drug] = &[
    drug("C08CA01", "2171022F1029", 100),
    drug("A02BC05", "2329029M1027", 100),
    drug("C10AA07", "2189017F1022", 100),
    drug("B01AC06", "3399007H1021", 100),
    drug("M01AE03", "1149019F1560", 300),
    drug("N02BE01", "1141007F1063", 300),
    drug("C09CA08", "2149044F1023", 100),
    drug("C07AB07", "2123016F1107", 50),
    drug("C03CA01", "2139005F1052", 100),
    drug("A06AD04", "2344009F2031", 600),
    drug("R06AX26", "4490023F1024", 200),
    drug("N05CF02", "1129009F1025", 100),
    drug("B01AF02", "3339004F1027", 200),
    drug("M04AA03", "3949003F1023", 100),
    drug("H02AB06", "2456001F1310", 150),
    drug("R03AK07", "2259808G1025", 200),
    drug("J01MA12", "6241013F2020", 100),
    drug("H03AA01", "2431004F1080", 100),
];

/// Drugs for diabetes.
pub(super) const DIABETIC_DRUGS: &[Drug] = &[
    drug("A10BA02", "3962002F2027", 300),
    drug("A10BA02", "3962002F3023", 200),
    drug("A10BH01", "3969010F2030", 100),
    drug("A10BK03", "3969023F1024", 100),
    drug("A10BB12", "3961008F1071", 200),
    drug("A10AE04", "2492416G1021", 12),
];

/// A laboratory test; mean and standard deviation in the last decimal recorded.
#[derive(Debug, Clone, Copy)]
pub(super) struct LabTest {
    pub(super) jlac10: &'static str,
    pub(super) mean: i64,
    pub(super) sd: i64,
    /// Decimals recorded, 0 to 2.
    pub(super) decimals: usize,
    /// Added to mean and deviation in mild, moderate and severe diabetes.
    pub(super) by_stage: [(i64, i64); 3],
}

const fn test(jlac10: &'static str, mean: i64, sd: i64, decimals: usize) -> LabTest {
    LabTest { jlac10, mean, sd, decimals, by_stage: [(0, 0); 3] }
}

/// Laboratory tests, the most frequent first.
pub(super) const LABS: &[LabTest] = &[
    // HbA1c (NGSP), %.
    LabTest { by_stage: [(11, 2), (21, 5), (37, 9)], ..test("3D046000001906202", 55, 3, 1) },
    // Glucose, mg/dL.
    LabTest { by_stage: [(30, 10), (60, 20), (105, 35)], ..test("3D010000002327201", 95, 10, 0) },
    // Creatinine, mg/dL.
    LabTest { by_stage: [(3, 2), (15, 15), (60, 60)], ..test("3C015000002327101", 80, 20, 2) },
    // AST and ALT, U/L.
    test("3B035000002327201", 24, 7, 0),
    test("3B045000002327201", 23, 9, 0),
    // LDL and HDL cholesterol, triglycerides, mg/dL.
    test("3F077000002327101", 118, 28, 0),
    test("3F070000002327101", 58, 14, 0),
    test("3F015000002327101", 125, 40, 0),
    // Haemoglobin, g/dL.
    test("2A030000001930101", 135, 16, 1),
    // Uric acid, mg/dL.
    test("3C020000002327101", 54, 13, 1),
    // C-reactive protein, mg/dL.
    test("5C070000002306201", 30, 40, 2),
    // Gamma-GT, U/L.
    test("3B090000002327101", 38, 20, 0),
    // Albumin, g/dL.
    test("3A015000002327101", 41, 4, 1),
];

/// Picks from a list by rank, the n-th in proportion to 1/n (Zipf).
pub(super) struct Ranked {
    up_to: Vec<u32>,
}

impl Ranked {
    pub(super) fn new(codes: usize) -> Self {
        let mut sum = 0;
        let up_to = (1..=codes as u32).map(|rank| {
            sum += 1_000_000 / rank;
            sum
        });
        Self { up_to: up_to.collect() }
    }

    /// An index into the list.
    pub(super) fn pick(&self, draw: &mut Draw) -> usize {
        let at = draw.below(self.up_to.last().copied().unwrap_or(1));
        self.up_to.partition_point(|up_to| *up_to <= at)
    }
}
