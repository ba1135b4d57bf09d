//! `init`: a new coordinator's keys, configuration and `member.json`.

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use clap::Args;
use miette::{IntoDiagnostic, WrapErr, miette};
use sekisho_protocol::{
    committee::{Committee, CommitteeMember},
    key_file,
    keys::{PublicKey, SecretKey},
    orders::Regulator,
    roster::{Member, Role},
    transport::{Multiaddr, peer_id_of_seed},
};

const CONFIG: &str = "coordinator.toml";
const MEMBER: &str = "member.json";

#[derive(Args)]
pub(super) struct Init {
    /// The directory to make.
    dir: PathBuf,
    /// Where nodes dial in: a multiaddr; may be given several times.
    #[arg(long, value_name = "MULTIADDR", default_value = "/ip4/0.0.0.0/tcp/4001")]
    listen: Vec<Multiaddr>,
    /// Where people ask: an IP address and a port. Off loopback the configuration needs [door.tls].
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8815")]
    door: std::net::SocketAddr,
    /// The access body's public key.
    #[arg(long, value_name = "KEY")]
    governance: Option<PublicKey>,
    /// How many of the committee must sign a permit.
    #[arg(long, value_name = "N", requires = "committee")]
    committee_quorum: Option<usize>,
    /// A member of the committee; may be given several times.
    #[arg(long, value_name = "NAME:ROLE:KEY", requires = "committee_quorum")]
    committee: Vec<CommitteeMember>,
    /// A role that must be among the signers of a permit; may be given several times.
    #[arg(long, value_name = "ROLE", requires = "committee")]
    required_role: Vec<String>,
    /// Two signers of one role count once.
    #[arg(long, requires = "committee")]
    distinct_roles: bool,
    /// A regulator whose orders to suspend are obeyed; may be given several times.
    #[arg(long, value_name = "NAME:KEY")]
    regulator: Vec<Regulator>,
    /// Take permits that answer no application: for networks of synthetic data.
    #[arg(long)]
    permits_without_application: bool,
}

impl Init {
    pub(super) fn run(self) -> miette::Result<()> {
        if let Some(quorum) = self.committee_quorum {
            let (roles, members) = (self.required_role.clone(), self.committee.clone());
            Committee::pinned(quorum, roles, self.distinct_roles, members)
                .map_err(|rule| miette!("--committee: {rule}"))?;
        }
        let (keys, config, member) = (self.dir.join("keys"), self.dir.join(CONFIG), self.dir.join(MEMBER));
        for path in [&config, &member, &keys] {
            if path.exists() {
                return Err(miette!("{} exists; nothing is overwritten: name another directory", path.display()));
            }
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&keys)
            .into_diagnostic()
            .wrap_err_with(|| name(&keys))?;
        let (transport, signing) = (SecretKey::generate(&mut rand::rng()), SecretKey::generate(&mut rand::rng()));
        key_file::write(&keys.join("transport.pem"), &transport).into_diagnostic()?;
        key_file::write(&keys.join("signing.pem"), &signing).into_diagnostic()?;
        let us = Member {
            name: "coordinator".into(),
            role: Role::Coordinator,
            peer_id: peer_id_of_seed(&transport.seed()).into_diagnostic()?.to_string(),
            signing_key: signing.public(),
        };
        let json = serde_json::to_string_pretty(&us).into_diagnostic()?;
        create(&member, &format!("{json}\n"))?;
        create(&config, &self.template())?;
        println!("{}", self.next_steps(&us, &config, &member));
        Ok(())
    }

    fn next_steps(&self, us: &Member, config: &Path, member: &Path) -> String {
        let mut steps = vec![format!(
            "Send {} to the access body, which adds it to the roster (`sekisho roster add`).\n     Fingerprint to compare: {}",
            member.display(),
            us.signing_key.fingerprint()
        )];
        if self.governance.is_none() || self.committee.is_empty() {
            steps.push(format!("Write the governance and committee keys into [trust] of {}.", config.display()));
        }
        if !self.door.ip().is_loopback() {
            steps.push(format!("Write certificate and key into [door.tls] of {}.", config.display()));
        }
        steps.push(format!("Run `sekisho-coordinator run --config {}`.", config.display()));
        let listed: Vec<String> = steps.iter().zip(1..).map(|(step, n)| format!("  {n}. {step}")).collect();
        format!("A coordinator was made in {}.\nPeer id {}\n{}", self.dir.display(), us.peer_id, listed.join("\n"))
    }

    fn template(&self) -> String {
        let listen: Vec<String> = self.listen.iter().map(|addr| format!("\"{addr}\"")).collect();
        let governance = match &self.governance {
            Some(key) => format!("governance_key = \"{key}\""),
            None => "governance_key = \"\" # 記入 / fill in".into(),
        };
        let quorum = self.committee_quorum.unwrap_or(2);
        let mut committee = String::new();
        for CommitteeMember { name, role, key } in &self.committee {
            let role = toml::Value::String(role.clone());
            committee.push_str(&format!("\n[[trust.committee]]\nname = \"{name}\"\nrole = {role}\nkey = \"{key}\"\n"));
        }
        if self.committee.is_empty() {
            committee = COMMITTEE_BLANK.into();
        }
        for Regulator { name, key } in &self.regulator {
            committee.push_str(&format!("\n# 停止命令に従う監督機関 / A regulator whose orders are obeyed.\n[[trust.regulators]]\nname = \"{name}\"\nkey = \"{key}\"\n"));
        }
        let tls = if self.door.ip().is_loopback() { TLS_COMMENTED } else { TLS_NEEDED };
        format!(
            r#"# Sekisho コーディネータの設定 / Configuration of a Sekisho coordinator.
# 相対パスはこのファイルのある場所から / Relative paths begin where this file is.

# データベースの場所 / Where the database lives.
state_dir = "state"

# 秘密鍵 (PKCS#8 PEM, 0600) / Private keys (PKCS#8 PEM, mode 0600).
[keys]
transport = "keys/transport.pem"
signing = "keys/signing.pem"

# 病院のノードが接続する先 / Where hospitals' nodes dial in.
[network]
listen = [{listen}]

# 利用者の窓口 (Arrow Flight)。ループバック以外では TLS が必要
# Where people ask (Arrow Flight). Off loopback, TLS is needed.
[door]
address = "{door}"
{tls}
# 誰の署名を信じるか。指紋を電話などで照合すること
# Whose signatures count. Compare fingerprints by telephone or in person.
[trust]
# 名簿・状態・スキーマに署名する鍵 / Signs roster, status and schemas.
{governance}
# 許可証に必要な委員の署名数 / How many of the committee must sign a permit.
committee_quorum = {quorum}
# 署名者に必ず含まれる役割 / Roles that must be among the signers.
required_roles = {roles}
# 同じ役割の署名は一つと数える / Two signers of one role count once.
distinct_roles = {distinct}
{committee}
[governance]
# 許可証は、ここで審査された申請に答えるものでなければならない
# A permit must answer an application that was reviewed here.
application_required = {required}

[limits]
# 病院が答えるまでの秒数 / How long hospitals have to answer, in seconds (1-540).
query_deadline_s = 120
# 同時に実行する問い合わせの数 / How many queries run at once (1-64).
max_concurrent_queries = 8
# 一人の問い合わせと事前確認: 同時に、また一分間に送れる数
# What one person may ask, dry runs too: at once (1-64), and in any minute (1-6000).
max_concurrent_per_person = 4
max_per_person_per_minute = 60

[watch]
# 指標と稼働状態 (任意、このマシンからのみ) / Metrics and health (optional, this machine only).
# address = "127.0.0.1:9817"

[log]
# "text" | "json"
format = "text"
# "error" | "warn" | "info" | "debug"
level = "info"

[transparency]
# 誰でも記録の木(チェックポイントとタイル)を HTTP で読める場所。書かなければ読めない
# Where anybody may read the log's checkpoint and tiles over HTTP; nobody may without it.
# address = "127.0.0.1:8816"
# 署名が足りているかを決めるファイル(c2sp.org/tlog-policy)/ Whose cosignatures are enough.
# policy = "witnesses.policy"

# 利用登録簿などのページ。TLS はリバースプロキシの役目です(docs/pages.md)。書かなければ提供されません
# The pages for people. TLS is a reverse proxy's (docs/pages.md). None are served unless this is written.
# [pages]
# address = "127.0.0.1:8818"
# origin = "https://register.example.jp"
# tokens = "pages-tokens"
"#,
            listen = listen.join(", "),
            door = self.door,
            roles = toml::Value::from(self.required_role.clone()),
            distinct = self.distinct_roles,
            required = !self.permits_without_application,
        )
    }
}

const TLS_COMMENTED: &str = "
# [door.tls]
# cert = \"/etc/sekisho/door.crt\"
# key = \"/etc/sekisho/door.key\"
";

const TLS_NEEDED: &str = "
[door.tls]
cert = \"door.crt\" # 記入 / fill in
key = \"door.key\" # 記入 / fill in
";

const COMMITTEE_BLANK: &str = "
# 委員ごとに一つ / One for each member.
[[trust.committee]]
name = \"member-1\"
role = \"ethics\"
key = \"\" # 記入 / fill in

[[trust.committee]]
name = \"member-2\"
role = \"layperson\"
key = \"\" # 記入 / fill in
";

fn create(path: &Path, text: &str) -> miette::Result<()> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.into_diagnostic().wrap_err_with(|| name(path))
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::Config;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        init: Init,
    }

    fn init(dir: &Path, more: &[String]) -> miette::Result<()> {
        let args = ["init".to_string(), dir.display().to_string()].into_iter().chain(more.iter().cloned());
        Line::try_parse_from(args).into_diagnostic()?.init.run()
    }

    fn key() -> String {
        SecretKey::generate(&mut rand::rng()).public().to_string()
    }

    #[test]
    fn what_init_writes_is_a_configuration_that_run_takes_and_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("c");
        let committee: Vec<String> = [("sato", "ethics"), ("kato", "a \"lawyer\"")]
            .map(|(n, r)| format!("--committee={n}:{r}:{}", key()))
            .into();
        let mut args =
            vec![format!("--governance={}", key()), "--committee-quorum=2".into(), "--door=127.0.0.1:0".into()];
        args.push("--listen=/ip4/127.0.0.1/tcp/0".into());
        args.extend(committee);
        init(&dir, &args).unwrap();
        let config = Config::load(&dir.join(CONFIG)).unwrap();
        assert_eq!(
            (config.trust.committee.needed, config.trust.committee.members.len(), config.listen.len()),
            (2, 2, 1)
        );
        key_file::read(&config.transport_key).unwrap();
        let member: Member = serde_json::from_slice(&fs::read(dir.join(MEMBER)).unwrap()).unwrap();
        assert_eq!(member.signing_key, key_file::read(&config.signing_key).unwrap().public());
        assert!(init(&dir, &args).unwrap_err().to_string().contains("overwritten"));
    }

    #[test]
    fn without_keys_to_trust_the_configuration_says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("c");
        init(&dir, &[]).unwrap();
        let refused = Config::load(&dir.join(CONFIG)).unwrap_err().to_string();
        assert!(refused.contains("trust.governance_key"), "{refused}");
    }

    #[test]
    fn a_quorum_that_nobody_can_reach_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let args = [format!("--committee=a:ethics:{}", key()), "--committee-quorum=2".into()];
        assert!(init(&dir.path().join("c"), &args).unwrap_err().to_string().contains("needed is 1"));
    }
}
