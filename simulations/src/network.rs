//! A whole network in one folder: keys, coordinator, nodes, roster, status, schema and permits.
//!
//! It is built by the commands that its people would type, on loopback, and runs as processes of its own.

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

use miette::{IntoDiagnostic, Result, WrapErr, miette};

use crate::launch::{Daemon, Launcher, Party};

/// How long the first status lives, as `sekisho` takes it.
const STATUS_LIVES: &str = "24h";
/// How long nodes may take to be connected with fresh documents.
const CONNECTED_WITHIN: Duration = Duration::from_secs(60);

/// One hospital to be: its name, its mapping's tables in TOML (without `schema`), and its register.
#[derive(Clone, Debug)]
pub struct Site {
    /// Roster name.
    pub name: String,
    /// The data set's mapping: `id`, `synthetic` and `[tables…]`; sources as absolute paths.
    pub mapping: String,
    /// A register to import, if any.
    pub register: Option<PathBuf>,
    /// How it decides on permits.
    pub accept: Accept,
}

impl Site {
    /// A hospital without a register, that decides by its policy.
    pub fn new(name: &str, mapping: String) -> Self {
        Self { name: name.into(), mapping, register: None, accept: Accept::Automatic }
    }
}

/// How a hospital decides on permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// By its policy, at once.
    Automatic,
    /// By a person.
    ByHand,
}

/// Who decides, and what a permit needs.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The committee: names of keys, and roles. Two must sign a permit.
    pub committee: [(&'static str, &'static str); 3],
    /// Two signers of one role count once.
    pub distinct_roles: bool,
    /// A permit must answer an application.
    pub application_required: bool,
}

impl Default for Rules {
    /// Three roles, any two of them, and no application.
    fn default() -> Self {
        let committee =
            [("ethicist", "ethicist"), ("patients", "patient-representative"), ("statistician", "statistician")];
        Self { committee, distinct_roles: false, application_required: false }
    }
}

/// What a network shall be.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The folder; it must be empty or not exist.
    pub dir: PathBuf,
    /// The hospitals.
    pub sites: Vec<Site>,
    /// The schema as JSON.
    pub schema: String,
    /// QUIC instead of TCP.
    pub quic: bool,
    /// The register rule of the nodes: `jp-ngmia` or `eu-ehds`.
    pub register_rule: String,
    /// Lifetime cap and query cap in micro-rho, where not the default.
    pub budget: Option<(u64, u64)>,
    /// Who decides, and what a permit needs.
    pub rules: Rules,
}

impl Setup {
    /// A network over TCP, with the rules and caps that are not said to be others.
    pub fn new(dir: PathBuf, sites: Vec<Site>, schema: &str) -> Self {
        let (schema, register_rule) = (schema.into(), "eu-ehds".into());
        Self { dir, sites, schema, quic: false, register_rule, budget: None, rules: Rules::default() }
    }
}

/// A network of processes.
pub struct Network {
    dir: PathBuf,
    launcher: Launcher,
    coordinator: Option<Daemon>,
    nodes: BTreeMap<String, Option<Daemon>>,
    door: String,
    /// Variables that only children of this network get; a test's party reads its kill points from them.
    hidden: Vec<(String, PathBuf)>,
}

/// A port of loopback that is free now, for TCP and UDP.
fn free_port() -> Result<u16> {
    for _ in 0..50 {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).into_diagnostic()?.port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(miette!("no free port on loopback"))
}

/// Copies the files of one folder into a new one.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).into_diagnostic()?;
    for file in fs::read_dir(from).into_diagnostic()? {
        let file = file.into_diagnostic()?;
        // The one folder in a state, `log`, is made again from the database.
        if file.file_type().into_diagnostic()?.is_dir() {
            continue;
        }
        fs::copy(file.path(), to.join(file.file_name())).into_diagnostic()?;
    }
    Ok(())
}

impl Network {
    /// Builds the folder, starts the coordinator and the nodes, and waits until all are connected.
    ///
    /// # Errors
    /// When a command fails: with what it said.
    pub fn build(setup: &Setup, launcher: Launcher, progress: &dyn Fn(&str)) -> Result<Self> {
        let dir = &setup.dir;
        for folder in ["keys", "logs", "nodes"] {
            fs::create_dir_all(dir.join(folder)).into_diagnostic()?;
        }
        let port = free_port()?;
        let door = format!("127.0.0.1:{}", free_port()?);
        let mut network = Self {
            dir: dir.clone(),
            launcher,
            coordinator: None,
            nodes: BTreeMap::new(),
            door: format!("http://{door}"),
            hidden: Vec::new(),
        };
        progress("keys of governance, committee and researcher");
        for name in ["governance", "researcher"].into_iter().chain(setup.rules.committee.iter().map(|member| member.0))
        {
            network.person(&["keys", "new", "--out", &network.key(name)])?;
        }
        progress("coordinator");
        let address = if setup.quic {
            format!("/ip4/127.0.0.1/udp/{port}/quic-v1")
        } else {
            format!("/ip4/127.0.0.1/tcp/{port}")
        };
        let governance = network.public_key("governance")?;
        let committee = network.committee(setup)?;
        let home = dir.join("coordinator").display().to_string();
        let mut args = vec!["init", &home, "--listen", &address, "--door", &door, "--governance", &governance];
        args.extend(["--committee-quorum", "2"]);
        args.extend(committee.iter().map(String::as_str));
        if !setup.rules.application_required {
            args.push("--permits-without-application");
        }
        network.launcher.run(Party::Coordinator, &args)?;
        network.start_coordinator()?;
        network.sign_schema(&setup.schema)?;
        let peer = network.coordinator_peer()?;
        for site in &setup.sites {
            progress(&format!("node {}", site.name));
            network.init_node(setup, site, &address, &peer)?;
        }
        progress("roster and status");
        let members: Vec<String> = setup.sites.iter().map(|s| network.node_file(&s.name, "member.json")).collect();
        let own = dir.join("coordinator/member.json").display().to_string();
        let key = network.key("governance");
        let mut args = vec!["roster", "add", own.as_str(), "--key", key.as_str()];
        args.extend(members.iter().map(String::as_str));
        network.sekisho(&args)?;
        network.refresh_status(STATUS_LIVES)?;
        for site in &setup.sites {
            progress(&format!("{}: register, snapshot, start", site.name));
            network.start_node(&site.name)?;
        }
        network.wait_connected(setup.sites.len())?;
        Ok(network)
    }

    fn init_node(&mut self, setup: &Setup, site: &Site, address: &str, peer: &str) -> Result<()> {
        let home = self.dir.join("nodes").join(&site.name);
        let (governance, committee) = (self.public_key("governance")?, self.committee(setup)?);
        let folder = home.display().to_string();
        let accept = match site.accept {
            Accept::Automatic => "automatic",
            Accept::ByHand => "by-hand",
        };
        let budget = setup.budget.map(|(lifetime, query)| format!("{lifetime}:{query}"));
        let mut args =
            vec!["init", &folder, "--name", &site.name, "--coordinator", address, "--coordinator-peer", peer];
        args.extend(["--governance", &governance, "--quorum", "2", "--dataset", "data/dataset.toml"]);
        args.extend(["--register-rule", &setup.register_rule, "--accept", accept]);
        args.extend(committee.iter().map(String::as_str));
        args.extend(budget.iter().flat_map(|b| ["--budget", b.as_str()]));
        self.launcher.run(Party::Node, &args)?;
        fs::create_dir_all(home.join("data")).into_diagnostic()?;
        fs::copy(self.dir.join("schema.dsse.json"), home.join("data/schema.dsse.json")).into_diagnostic()?;
        let mapping = format!("schema = \"schema.dsse.json\"\n{}", site.mapping);
        fs::write(home.join("data/dataset.toml"), mapping).into_diagnostic()?;
        if let Some(register) = &site.register {
            let (file, config) = (register.display().to_string(), self.node_file(&site.name, "node.toml"));
            self.launcher.run(Party::Node, &["patients", "import", &file, "--by", "setup", "--config", &config])?;
        }
        self.nodes.insert(site.name.clone(), None);
        Ok(())
    }

    fn sign_schema(&self, schema: &str) -> Result<()> {
        let (plain, signed) = (self.dir.join("schema.json"), self.dir.join("schema.dsse.json"));
        fs::write(&plain, schema).into_diagnostic()?;
        let (plain, signed, key) = (plain.display().to_string(), signed.display().to_string(), self.key("governance"));
        self.person(&["schema", "sign", &plain, "--key", &key, "--out", &signed])?;
        self.sekisho(&["schema", "submit", &signed])?;
        Ok(())
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The coordinator's door as a URL.
    pub fn door(&self) -> &str {
        &self.door
    }

    /// The names of the nodes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// The process ids of everything that runs.
    pub fn process_ids(&self) -> Vec<u32> {
        self.coordinator.iter().chain(self.nodes.values().flatten()).map(Daemon::id).collect()
    }

    /// The file of the key `name`.
    pub fn key(&self, name: &str) -> String {
        self.dir.join("keys").join(format!("{name}.pem")).display().to_string()
    }

    /// The public half of the key `name`, base64.
    ///
    /// # Errors
    /// When its file is missing.
    pub fn public_key(&self, name: &str) -> Result<String> {
        let path = format!("{}.pub", self.key(name));
        Ok(fs::read_to_string(&path).into_diagnostic().wrap_err(path)?.trim().to_string())
    }

    /// The committee as both `init`s take it.
    fn committee(&self, setup: &Setup) -> Result<Vec<String>> {
        let mut args = Vec::new();
        for (name, role) in &setup.rules.committee {
            args.extend(["--committee".into(), format!("{name}:{role}:{}", self.public_key(name)?)]);
        }
        if setup.rules.distinct_roles {
            args.push("--distinct-roles".into());
        }
        Ok(args)
    }

    /// A file of a node's folder.
    pub fn node_file(&self, name: &str, file: &str) -> String {
        self.dir.join("nodes").join(name).join(file).display().to_string()
    }

    fn coordinator_peer(&self) -> Result<String> {
        let text = fs::read_to_string(self.dir.join("coordinator/member.json")).into_diagnostic()?;
        let member: sekisho_protocol::roster::Member = serde_json::from_str(&text).into_diagnostic()?;
        Ok(member.peer_id)
    }

    /// Sets a variable for processes that are started from now on.
    pub fn hide(&mut self, name: &str, value: &Path) {
        self.hidden.retain(|(n, _)| n != name);
        self.hidden.push((name.into(), value.into()));
    }

    /// Takes a variable back.
    pub fn unhide(&mut self, name: &str) {
        self.hidden.retain(|(n, _)| n != name);
    }

    fn hidden(&self) -> Vec<(&str, &Path)> {
        self.hidden.iter().map(|(n, v)| (n.as_str(), v.as_path())).collect()
    }

    /// Starts the coordinator.
    ///
    /// # Errors
    /// When it does not announce its door.
    pub fn start_coordinator(&mut self) -> Result<()> {
        let config = self.dir.join("coordinator/coordinator.toml").display().to_string();
        let log = self.dir.join("logs/coordinator.log");
        let daemon =
            self.launcher.daemon(Party::Coordinator, &["run", "--config", &config], &self.hidden(), "door ", &log)?;
        self.coordinator = Some(daemon);
        Ok(())
    }

    /// Keeps a copy of the coordinator's state as it is now, under `name`; the coordinator is stopped for it.
    ///
    /// # Errors
    /// When a file cannot be copied, or the coordinator does not start again.
    pub fn keep_coordinator_state(&mut self, name: &str) -> Result<()> {
        self.kill_coordinator();
        let state = self.dir.join("coordinator/state");
        copy_files(&state, &self.dir.join("kept").join(name))?;
        self.start_coordinator()
    }

    /// Puts a kept state in the place of the coordinator's, as a coordinator would that forgets or denies what it knew.
    ///
    /// # Errors
    /// When there is none of this name, or the coordinator does not start again.
    pub fn swap_coordinator_state(&mut self, name: &str) -> Result<()> {
        self.kill_coordinator();
        let state = self.dir.join("coordinator/state");
        fs::remove_dir_all(&state).into_diagnostic()?;
        copy_files(&self.dir.join("kept").join(name), &state)?;
        self.start_coordinator()
    }

    /// Kills the coordinator as `kill -9` does.
    pub fn kill_coordinator(&mut self) {
        self.coordinator = None;
    }

    /// Starts a node.
    ///
    /// # Errors
    /// When it does not announce itself.
    pub fn start_node(&mut self, name: &str) -> Result<()> {
        let config = self.node_file(name, "node.toml");
        let log = self.dir.join(format!("logs/{name}.log"));
        let daemon = self.launcher.daemon(Party::Node, &["run", "--config", &config], &self.hidden(), "node ", &log)?;
        self.nodes.insert(name.into(), Some(daemon));
        Ok(())
    }

    /// Kills a node as `kill -9` does.
    pub fn kill_node(&mut self, name: &str) {
        if let Some(node) = self.nodes.get_mut(name) {
            *node = None;
        }
    }

    /// Leaves all processes running.
    pub fn leave(self) {
        for daemon in self.coordinator.into_iter().chain(self.nodes.into_values().flatten()) {
            daemon.leave();
        }
    }

    /// Runs `sekisho` without a coordinator.
    ///
    /// # Errors
    /// When it fails.
    pub fn person(&self, args: &[&str]) -> Result<String> {
        self.launcher.run(Party::Person, args)
    }

    /// Runs `sekisho` against the coordinator's door.
    ///
    /// # Errors
    /// When it fails.
    pub fn sekisho(&self, args: &[&str]) -> Result<String> {
        self.person(&[&["--coordinator", &self.door], args].concat())
    }

    /// Runs `sekisho` against the coordinator's door, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn ask(&self, args: &[&str]) -> Result<Output> {
        self.launcher.output(Party::Person, &[&["--coordinator", &self.door], args].concat())
    }

    /// Runs `sekisho-node` for the node `name`.
    ///
    /// # Errors
    /// When it fails.
    pub fn node(&self, name: &str, args: &[&str]) -> Result<String> {
        let config = self.node_file(name, "node.toml");
        self.launcher.run(Party::Node, &[args, &["--config", &config]].concat())
    }

    /// Runs `sekisho-node` for the node `name`, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn node_output(&self, name: &str, args: &[&str]) -> Result<Output> {
        let config = self.node_file(name, "node.toml");
        self.launcher.output(Party::Node, &[args, &["--config", &config]].concat())
    }

    /// Runs `sekisho-coordinator` on the coordinator's configuration, and returns how that ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn coordinator_output(&self, args: &[&str]) -> Result<Output> {
        let config = self.dir.join("coordinator/coordinator.toml").display().to_string();
        self.launcher.output(Party::Coordinator, &[args, &["--config", &config]].concat())
    }

    /// Publishes a fresh status that lives for `lives`.
    ///
    /// # Errors
    /// When it fails.
    pub fn refresh_status(&self, lives: &str) -> Result<()> {
        self.sekisho(&["status", "refresh", "--key", &self.key("governance"), "--valid-for", lives]).map(|_| ())
    }

    /// Drafts a permit from TOML, has two of three committee members sign it, submits it, and returns its digest.
    ///
    /// # Errors
    /// When a step fails, or a node does not accept it.
    pub fn permit(&self, name: &str, toml: &str) -> Result<String> {
        let (draft, signed) = (self.dir.join(format!("{name}.toml")), self.dir.join(format!("{name}.dsse.json")));
        fs::write(&draft, toml).into_diagnostic()?;
        let (draft, file) = (draft.display().to_string(), signed.display().to_string());
        self.person(&["permit", "new", "--from", &draft, "--out", &file])?;
        for member in ["ethicist", "patients"] {
            self.person(&["permit", "sign", &file, "--key", &self.key(member)])?;
        }
        self.sekisho(&["permit", "submit", &file])?;
        let envelope: sekisho_protocol::dsse::Envelope =
            serde_json::from_slice(&fs::read(&signed).into_diagnostic()?).into_diagnostic()?;
        let (_, digest) = envelope.peek::<sekisho_protocol::permit::Permit>().into_diagnostic()?;
        Ok(digest.to_string())
    }

    /// Waits until `nodes` nodes are connected and hold the newest roster and status.
    ///
    /// # Errors
    /// When it takes more than a minute.
    pub fn wait_connected(&self, nodes: usize) -> Result<()> {
        let until = Instant::now() + CONNECTED_WITHIN;
        loop {
            let text = self.sekisho(&["network", "show", "--output", "json"])?;
            let report: sekisho_coordinator::report::NetworkReport = serde_json::from_str(&text).into_diagnostic()?;
            let fresh = |m: &&sekisho_coordinator::report::MemberReport| {
                m.connected && m.roster_seq == report.roster_seq && m.status_seq == report.status_seq
            };
            if report.members.iter().filter(fresh).count() >= nodes {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(miette!("nodes are not connected with fresh documents: {text}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
