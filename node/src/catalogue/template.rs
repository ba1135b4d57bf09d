//! The commented file that a custodian starts from, with the tables and columns of the mapping.

use std::fmt::Write;

use sekisho_protocol::schema::Table;

use crate::data::mapping::Mapping;

const HEAD: &str = r#"# What this hospital declares of one data set, for the network's catalogue. Everything here is public.
# Nothing in this file is looked up in the data: domains, extremes and periods are what you declare.
# 当院のデータセットの公開目録です。ここに書いた内容はすべて公開されます。
# このファイルの内容は患者データから読み取られません(値域・最小最大・期間も申告値です)。

# The counts of records, of patients and of filled-in values are drawn with noise and charged to the patient register's
# lifetime budget under the study `catalogue`. Patients who said no are not counted.
# 件数・患者数・充足率は雑音を加えて算出され、患者名簿の生涯予算から(研究名 catalogue として)差し引かれます。
# 拒否を申し出た患者は数えません。
[counts]
# What one table's counts cost each time, in micro-rho; at most budget.per_query_micro_rho of node.toml.
# 1表・1回あたりの費用(マイクロρ)。node.toml の budget.per_query_micro_rho 以下。
micro_rho_per_table = 2000
# What all counts of this data set may ever cost. / このデータセットの件数算出に使える総額。
total_micro_rho = 100000
# Counts are drawn again after so many days, at least 28; until then the stored ones are used and nothing is charged.
# 再算出までの日数(28日以上)。それまでは保存済みの値を使い、費用はかかりません。
redraw_days = 90

# Texts may be in Japanese (ja), English (en), or both. / 文章は日本語・英語のどちらか、または両方。
[data_set]
title = { ja = "入院診療データ", en = "Inpatient records" }
description = { ja = "当院の入院診療に関する記録", en = "Records of inpatient care at this hospital" }
keywords = { ja = ["入院"], en = ["inpatient"] }
# EHDS Art. 51 categories: EHRS, HRAD, RQSH, RMMD, … / 健康データの区分
health_categories = ["EHRS"]
# health_themes = ["HEALTH_SYSTEMS"]
types = ["STATISTICAL"]
# The laws that the data falls under, by address. / 適用される法令(URL)
legislation = ["http://data.europa.eu/eli/reg/2025/327/oj"]
legal_basis = [{ ja = "次世代医療基盤法", en = "Next-Generation Medical Infrastructure Act" }]
purposes = [{ ja = "医療の質の向上", en = "Improving care" }]
# Codes of the Data Privacy Vocabulary. / 個人データの種類
personal_data = ["Age", "Gender", "HealthRecord"]
provenance = { ja = "電子カルテから抽出", en = "Extracted from the electronic health record" }
spatial = ["JPN"]
languages = ["JPN"]
# frequency = "DAILY"
# min_age = 0
# max_age = 110
# temporal = { from = "2020-01-01", to = "2024-12-31" }
# retention = { from = "2020-01-01", to = "2035-12-31" }
# population_coverage = { ja = "二次医療圏の入院患者", en = "Inpatients of the region" }
# Terminologies, then technical standards. / 用語集、標準規格
coding_systems = ["ICD-10"]
# conforms_to = ["OMOP-CDM"]
# pages = ["https://hospital.example/data"]
# analytics = ["https://hospital.example/data/report"]

# The health data access body. / 健康データアクセス機関
[data_set.hdab]
name = { ja = "運営機関", en = "Access body" }
type = "national-authority"
email = "hdab@example.org"

# Who holds the data. / データ保有者
[data_set.custodian]
name = { ja = "例病院", en = "Example hospital" }
type = "healthcare-providers"
email = "data@hospital.example"

# Who publishes this description. / 公開者
[data_set.publisher]
name = { ja = "例病院", en = "Example hospital" }
type = "healthcare-providers"
email = "data@hospital.example"

# Whom to ask: email, page, or both. / 問い合わせ先
[data_set.contact]
name = { ja = "例病院 データ窓口", en = "Data desk" }
email = "data@hospital.example"

# Where one applies for use. / 利用申請の窓口
[data_set.distribution]
title = { ja = "申請による統計", en = "Statistics on application" }
access_url = "https://hospital.example/apply"

# Quality, under the headings of EHDS Art. 78; all optional. / データの品質(任意)
[data_set.quality]
# documentation = { en = "" }
# technical_quality = { en = "" }
# management = { en = "" }
# coverage = { en = "" }
# access = { en = "" }
# modifications = { en = "" }
# certificate = "https://hospital.example/quality"

# The tables of the mapping. rows_per_patient bounds how many records of one patient count in full: too low and counts come out
# low, too high and the noise grows with it. completeness names the columns whose filled-in values are counted (default: all).
# マッピングの各表。rows_per_patient は1患者あたり満額で数える件数の上限です(小さいと過少に、大きいと雑音が増えます)。
# completeness は充足率を数える列です(省略時は全列)。
"#;

/// A declaration of the data set of `mapping` to start from. As it stands it can be loaded.
pub fn template(mapping: &Mapping) -> String {
    let mut text = HEAD.to_string();
    for mapped in mapping.tables().values() {
        table(&mut text, mapped.table());
    }
    text
}

fn table(text: &mut String, table: &Table) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "\n[tables.{}]", table.name);
    let _ = writeln!(text, "# title = {{ ja = \"\", en = \"\" }}\n# description = {{ ja = \"\", en = \"\" }}");
    let _ = writeln!(text, "# period = {{ from = \"2020-01-01\" }}");
    if table.patient.is_some() {
        let rows = if table.one_row_per_patient { 1 } else { 20 };
        let _ = writeln!(text, "rows_per_patient = {rows}\n# completeness = []");
    }
    for column in table.columns.iter().filter(|column| Some(&column.name) != table.patient.as_ref()) {
        let _ = writeln!(text, "# [tables.{}.columns.{}]", table.name, column.name);
        let _ = writeln!(text, "# description = {{ ja = \"\", en = \"\" }}");
        if column.domain.is_some() || column.bounds.is_none() {
            let _ = writeln!(text, "# code_system = \"ICD-10\"");
        } else {
            let _ = writeln!(text, "# extremes = {{ min = \"\", max = \"\" }}");
        }
    }
}
