use proptest::prelude::*;

use super::*;
use crate::log::{
    checkpoint::CheckpointError,
    cosignature::{WitnessError, cosigned},
    lines,
    merkle::ProofError,
    note::{Note, NoteError},
    policy::TrustError,
};

const EXAMPLE_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
const EXAMPLE: &str = "This is an example message.\n\n\
    — example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
const GO_DOC_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_DOC: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\n\
    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const SUMDB_KEY: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
const SUMDB: &str = "go.sum database tree\n65209736\n5+uGFjx6xBZG8ip1+wi77v+grwbhhukIrxEUS8PXvRo=\n\n\
    — sum.golang.org Az3grnbssgK7ubgFX36gVETtNv0U23qxyAhAMai2QUfeGa3nB/akvkMdlUErfcZz7l/R3cVtYspg3dxXABkGZZKdsQ8=\n";
const COSIGNED: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
    — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
    — witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

#[test]
fn notes_of_the_specification_of_go_and_of_its_checksum_database_verify() {
    for (key, note) in [(EXAMPLE_KEY, EXAMPLE), (GO_DOC_KEY, GO_DOC), (SUMDB_KEY, SUMDB)] {
        let (key, parsed) = (key.parse::<NoteKey>().unwrap(), Note::parse(note.as_bytes()).unwrap());
        assert_eq!(parsed.signed_by(&key), Ok(true), "{key}");
        assert_eq!(parsed.to_string(), note);
        let changed = note.replacen(' ', "  ", 1);
        let refused = Note::parse(changed.as_bytes()).unwrap().signed_by(&key);
        assert_eq!(refused, Err(NoteError::BadSignature(key.name().clone())));
    }
    let stranger = NoteKey::new(name("example.com/foo"), Signs::Text, key(9).public());
    assert_eq!(Note::parse(EXAMPLE.as_bytes()).unwrap().signed_by(&stranger), Ok(false), "the same name, another id");
}

#[test]
fn the_cosigned_checkpoint_of_the_specification_is_read() {
    // Its keys are not published; the time is that of the message that the specification shows.
    let parsed = SignedCheckpoint::parse(COSIGNED.as_bytes()).unwrap();
    assert_eq!(
        (parsed.claimed().origin().as_str(), parsed.claimed().head().size()),
        ("example.com/behind-the-sofa", 20_852_163)
    );
    assert_eq!(parsed.to_string(), COSIGNED);
    let line = COSIGNED.split_inclusive('\n').next_back().unwrap();
    let bytes = lines::base64(line.trim_end().split(' ').next_back().unwrap()).unwrap();
    assert_eq!((bytes.len(), &bytes[4..12]), (76, &1_679_315_147_u64.to_be_bytes()[..]));
}

#[test]
fn keys_and_notes_have_one_form() {
    for key in [EXAMPLE_KEY, GO_DOC_KEY, SUMDB_KEY] {
        assert_eq!(key.parse::<NoteKey>().unwrap().to_string(), key);
    }
    let (id, body) = ("530d903a", "AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k");
    for key in [
        "".into(),
        "example.com/foo".into(),
        format!("example.com/foo+{id}"),
        format!("example.com/fop+{id}+{body}"),
        format!("example.com/foo+530D903A+{body}"),
        format!("example.com/foo+530d903b+{body}"),
        format!("+{id}+{body}"),
        format!("example.com/foo+{id}+{body}="),
        format!("example.com/foo+{id}+{body}+"),
        format!("a b+{id}+{body}"),
        format!("example.com/foo+{id}+{}", body.replacen('A', "B", 1)),
        format!("example.com/foo+{id}+{}", &body[..40]),
    ] {
        assert!(key.parse::<NoteKey>().is_err(), "{key}");
    }
    let line = EXAMPLE.split_once("\n\n").unwrap().1;
    let many = |n: usize| format!("text\n\n{}", line.repeat(n));
    assert!(Note::parse(many(64).as_bytes()).is_ok());
    for (fact, note) in [
        ("empty", "".into()),
        ("no signatures", "text\n\n".into()),
        ("no empty line", format!("text\n{line}")),
        ("no newline at its end", EXAMPLE.trim_end().into()),
        ("more after its signatures", format!("{EXAMPLE}more\n")),
        ("a tab", EXAMPLE.replacen(' ', "\t", 1)),
        ("a carriage return", EXAMPLE.replace('\n', "\r\n")),
        ("a hyphen for the dash", EXAMPLE.replace('—', "-")),
        ("two spaces", EXAMPLE.replace("foo Uw", "foo  Uw")),
        ("a name with a plus", EXAMPLE.replace("/foo", "+foo")),
        ("a name with a wide space", EXAMPLE.replace("/foo", "\u{3000}foo")),
        ("no base64", EXAMPLE.replace("Uw2Q", "Uw-Q")),
        ("base64 without padding", EXAMPLE.replace("aQM=", "aQM")),
        ("base64 with spare bits", EXAMPLE.replace("aQM=", "aQN=")),
        ("a signature of four bytes", "text\n\n— a AAAAAA==\n".into()),
        ("65 signatures", many(65)),
        ("256 KiB", format!("{}\n\n{line}", "x".repeat(256 << 10))),
    ] {
        assert!(Note::parse(note.as_bytes()).is_err(), "{fact}");
    }
    assert!(Note::parse(b"\xff\n\n").is_err());
}

#[test]
fn a_checkpoint_has_one_form() {
    let text = checkpoint(Log::counting(5, None).head(5)).to_string();
    assert_eq!(SignedCheckpoint::parse(text.as_bytes()).unwrap().to_string(), text);
    let with = |extensions: &str| text.replacen("\n\n", &format!("\n{extensions}\n"), 1);
    assert_eq!(
        SignedCheckpoint::parse(with("more\nlines\n").as_bytes()).unwrap().claimed().extensions(),
        ["more", "lines"]
    );
    for (fact, changed) in [
        ("a leading zero", text.replace("\n5\n", "\n05\n")),
        ("a plus", text.replace("\n5\n", "\n+5\n")),
        ("no size", text.replace("\n5\n", "\n\n")),
        ("2^63", text.replace("\n5\n", "\n9223372036854775808\n")),
        ("digits of another script", text.replace("\n5\n", "\n５\n")),
        ("empty, with another root", text.replace("\n5\n", "\n0\n")),
        ("a short root", text.replacen("=\n", "\n", 1)),
        ("an origin with a space", text.replacen("sekisho", "seki sho", 1)),
        ("an empty extension", with("\nmore\n")),
        ("17 extensions", with(&"x\n".repeat(17))),
        ("a long extension", with(&format!("{}\n", "x".repeat(1025)))),
    ] {
        assert!(
            matches!(
                SignedCheckpoint::parse(changed.as_bytes()),
                Err(CheckpointError::Malformed(_) | CheckpointError::Note(_))
            ),
            "{fact}"
        );
    }
}

#[test]
fn a_checkpoint_is_its_logs_own_or_not_believed() {
    let log = Log::counting(5, None);
    let signed = checkpoint(log.head(5));
    let key_of = |origin: &str, signs, byte| NoteKey::new(name(origin), signs, key(byte).public());
    assert!(signed.verify(&key_of(ORIGIN, Signs::Text, 1)).is_ok());
    let said = |key: NoteKey| signed.verify(&key).unwrap_err();
    assert_eq!(said(key_of(ORIGIN, Signs::Text, 2)), CheckpointError::Unsigned(name(ORIGIN)));
    assert_eq!(said(key_of(ORIGIN, Signs::Cosignature, 1)), CheckpointError::Unsigned(name(ORIGIN)));
    assert!(matches!(said(key_of("another.example", Signs::Text, 1)), CheckpointError::OtherLog { .. }));
    let mut twice = signed.clone();
    let line: NoteSignature = signed.to_string().split_inclusive('\n').next_back().unwrap().parse().unwrap();
    twice.add(line).unwrap();
    assert_eq!(twice.verify(&key_of(ORIGIN, Signs::Text, 1)), Err(NoteError::DuplicateSigner(name(ORIGIN)).into()));
}

#[test]
fn a_witness_cosigns_what_continues_the_newest_it_cosigned_and_nothing_else() {
    let (log, forked) = (Log::counting(20, None), Log::counting(20, Some(3)));
    let proof = |old| log.consistency(old, 20);
    let check = |newest: Option<TreeHead>, offered: TreeHead, proof: &[Digest]| {
        Continued::check(newest.map(verified).as_deref(), verified(offered), proof)
            .map(|continued| *continued.into_checkpoint().head())
    };
    assert_eq!(check(None, log.head(20), &[]), Ok(log.head(20)), "the first it sees");
    assert_eq!(check(Some(log.head(12)), log.head(20), &proof(12)), Ok(log.head(20)));
    assert_eq!(check(Some(log.head(20)), log.head(20), &[]), Ok(log.head(20)), "the same again");
    let not_consistent = |old| Err(WitnessError::Proof(ProofError::NotConsistent { old, new: 20 }));
    assert_eq!(check(Some(forked.head(12)), log.head(20), &proof(12)), not_consistent(12));
    assert_eq!(check(Some(forked.head(12)), log.head(20), &forked.consistency(12, 20)), not_consistent(12));
    assert_eq!(check(Some(log.head(12)), log.head(20), &[]), Err(ProofError::Length { found: 0, needed: 4 }.into()));
    assert_eq!(check(Some(log.head(20)), log.head(12), &[]), Err(ProofError::Shrunk { old: 20, new: 12 }.into()));
    let forks = Err(WitnessError::Forked { origin: name(ORIGIN), size: 20 });
    assert_eq!(check(Some(forked.head(20)), log.head(20), &[]), forks);
    let other = Checkpoint::new(name("another.example"), log.head(12));
    let other = SignedCheckpoint::sign(other, &key(1)).unwrap();
    let other = other.verify(&NoteKey::new(name("another.example"), Signs::Text, key(1).public())).unwrap();
    let refused = Continued::check(Some(&other), verified(log.head(20)), &proof(12)).unwrap_err();
    assert!(matches!(refused, WitnessError::OtherLog { .. }));
    let before_1970 = Continued::check(None, verified(log.head(20)), &[]).unwrap();
    let before_1970 = before_1970.cosign(name("w"), &key(2), DateTime::from_timestamp(-1, 0).unwrap());
    assert_eq!(before_1970, Err(WitnessError::Time));
}

#[test]
fn a_cosignature_is_over_the_checkpoint_and_its_time() {
    let log = Log::counting(5, None);
    let witness = |signs, byte| NoteKey::new(name(WITNESSES[0].0), signs, key(byte).public());
    let cosign = |head: TreeHead, line: NoteSignature| {
        let mut signed = checkpoint(head);
        signed.add(line).unwrap();
        signed
    };
    let line = cosignature(log.head(5), 0, 1_700_000_000);
    let signed = cosign(log.head(5), line.clone());
    assert_eq!(cosigned(&signed, &witness(Signs::Cosignature, 2)), Ok(DateTime::from_timestamp(1_700_000_000, 0)));
    assert_eq!(cosigned(&signed, &witness(Signs::Cosignature, 3)), Ok(None), "another key of that name");
    assert_eq!(cosigned(&signed, &witness(Signs::Text, 2)), Ok(None), "the same key, as a log's");
    let bad = Err(NoteError::BadSignature(name(WITNESSES[0].0)));
    assert_eq!(cosigned(&cosign(log.head(4), line.clone()), &witness(Signs::Cosignature, 2)), bad, "moved");
    // The time of one over the signature of another.
    let bytes =
        |line: &NoteSignature| lines::base64(line.to_string().trim_end().split(' ').next_back().unwrap()).unwrap();
    let (early, late) = (bytes(&line), bytes(&cosignature(log.head(5), 0, 1_700_000_001)));
    let mixed = [&late[..12], &early[12..]].concat();
    for (fact, bytes) in
        [("another time", &mixed[..]), ("cut", &early[..75]), ("no time", &[&early[..4], &early[12..]].concat())]
    {
        let line = format!("— {} {}\n", WITNESSES[0].0, lines::to_base64(bytes)).parse().unwrap();
        assert_eq!(cosigned(&cosign(log.head(5), line), &witness(Signs::Cosignature, 2)), bad, "{fact}");
    }
}

/// Which witnesses signed, and whether the policy is content.
fn verdict(policy: &str, witnesses: &[usize]) -> Result<usize, &'static str> {
    let policy = Policy::parse(policy.as_bytes()).unwrap();
    let head = Log::counting(5, None).head(5);
    let mut signed = checkpoint(head);
    witnesses.iter().for_each(|w| signed.add(cosignature(head, *w, 1_700_000_000)).unwrap());
    policy.check(&signed).map(|good| good.witnesses().len()).map_err(|e| match e {
        TrustError::Checkpoint(CheckpointError::Note(NoteError::DuplicateSigner(_))) => "twice",
        TrustError::Checkpoint(_) => "checkpoint",
        TrustError::UnknownLog(_) => "unknown log",
        TrustError::Quorum { .. } => "quorum",
    })
}

#[test]
fn a_policy_is_content_with_the_quorum_that_it_names() {
    let quorum =
        |quorum: &str| policy_text().replace("group hospitals 2 tokyo osaka nagoya\nquorum hospitals\n", quorum);
    for (policy, witnesses, expect) in [
        (policy_text(), &[0, 1][..], Ok(2)),
        (policy_text(), &[0, 1, 2], Ok(3)),
        (policy_text(), &[2], Err("quorum")),
        (policy_text(), &[], Err("quorum")),
        (policy_text(), &[1, 1], Err("twice")),
        (quorum("quorum none\n"), &[], Ok(0)),
        (quorum("quorum osaka\n"), &[1], Ok(1)),
        (quorum("quorum osaka\n"), &[0, 2], Err("quorum")),
        (quorum("group all any tokyo osaka\nquorum all\n"), &[1], Ok(1)),
        (quorum("group both all tokyo osaka\ngroup g 1 both nagoya\nquorum g\n"), &[0], Err("quorum")),
        (quorum("group both all tokyo osaka\ngroup g 1 both nagoya\nquorum g\n"), &[0, 1], Ok(2)),
        (quorum("group both all tokyo osaka\ngroup g 1 both nagoya\nquorum g\n"), &[2], Ok(1)),
        (quorum("group both all tokyo osaka\ngroup g all both nagoya\nquorum g\n"), &[2, 0], Err("quorum")),
        (quorum(" \t quorum\t none \n\n  # the end\n"), &[0], Ok(1)),
        ("quorum none\n".into(), &[], Err("unknown log")),
    ] {
        assert_eq!(verdict(&policy, witnesses), expect, "{policy}{witnesses:?}");
    }
    // A log's word about itself is no witness, whatever it is called.
    let own = NoteKey::new(name("friend.example"), Signs::Cosignature, key(1).public());
    let policy = quorum(&format!("witness friend {own}\nquorum friend\n"));
    let head = Log::counting(5, None).head(5);
    let mut signed = checkpoint(head);
    let continued = Continued::check(None, verified(head), &[]).unwrap();
    signed.add(continued.cosign(name("friend.example"), &key(1), DateTime::UNIX_EPOCH).unwrap()).unwrap();
    assert!(matches!(Policy::parse(policy.as_bytes()).unwrap().check(&signed), Err(TrustError::Quorum { .. })));
    // While a log rotates its key, either counts.
    let rotated = format!("log {}\n{}", NoteKey::new(name(ORIGIN), Signs::Text, key(7).public()), policy_text());
    assert_eq!(verdict(&rotated, &[0, 1]), Ok(2));
}

#[test]
fn a_policy_that_breaks_a_rule_is_refused_with_its_line() {
    let keys: Vec<String> = policy_text()
        .lines()
        .filter_map(|line| line.split(' ').find(|word| word.contains('+')))
        .map(str::to_owned)
        .collect();
    let [log, tokyo, osaka, _] = &keys[..] else { panic!("four keys") };
    let filled = |text: &str| text.replace("LOG", log).replace("TOKYO", tokyo).replace("OSAKA", osaka);
    let long = format!("{}quorum none\n", "# a line of a comment\n".repeat(6000));
    let many: String = (0..129)
        .map(|i| format!("group g{i} 1 {}\n", if i == 0 { "w".into() } else { format!("g{}", i - 1) }))
        .collect();
    for (fact, line, text) in [
        ("nothing", 0, "".to_owned()),
        ("no quorum", 0, "log LOG\n".into()),
        ("cut within a line", 0, "log LOG\nquorum none".into()),
        ("too long", 0, long),
        ("two quorums", 2, "quorum none\nquorum none\n".into()),
        ("a quorum of nobody", 1, "quorum nobody\n".into()),
        ("a quorum defined below", 1, "quorum w\nwitness w TOKYO\n".into()),
        ("a log twice", 2, "log LOG\nlog LOG\nquorum none\n".into()),
        ("a log with a witness' key", 1, "log TOKYO\nquorum none\n".into()),
        ("a witness with a log's key", 1, "witness w LOG\nquorum none\n".into()),
        ("a witness' key twice", 2, "witness a TOKYO\nwitness b TOKYO\nquorum none\n".into()),
        ("a name twice", 2, "witness a TOKYO\nwitness a OSAKA\nquorum none\n".into()),
        ("a witness named none", 1, "witness none TOKYO\nquorum none\n".into()),
        ("a group of none", 1, "group g any none\nquorum g\n".into()),
        ("a group of itself", 1, "group g any g\nquorum g\n".into()),
        ("a group of nobody", 1, "group g any\nquorum none\n".into()),
        ("0 of 1", 2, "witness w TOKYO\ngroup g 0 w\nquorum g\n".into()),
        ("2 of 1", 2, "witness w TOKYO\ngroup g 2 w\nquorum g\n".into()),
        ("01 of 1", 2, "witness w TOKYO\ngroup g 01 w\nquorum g\n".into()),
        ("one member twice", 2, "witness w TOKYO\ngroup g 1 w w\nquorum g\n".into()),
        ("one member of two groups", 3, "witness w TOKYO\ngroup g any w\ngroup h any w\nquorum h\n".into()),
        ("an unknown word", 1, "trust LOG\nquorum none\n".into()),
        ("too many words", 1, "log LOG https://log.example/ more\nquorum none\n".into()),
        ("a carriage return", 1, "quorum none\r\n".into()),
        ("a comment that is not at its start", 1, "quorum none # all\n".into()),
        ("too many groups", 129, format!("witness w TOKYO\n{many}quorum none\n")),
        ("not a key", 1, "log sekisho.example\nquorum none\n".into()),
    ] {
        assert_eq!(Policy::parse(filled(&text).as_bytes()).map(drop).map_err(|e| e.line), Err(line), "{fact}");
    }
    assert_eq!(Policy::parse(b"\xff\nquorum none\n").map(drop).map_err(|e| e.line), Err(0));
    assert!(
        Policy::parse(
            filled("log LOG https://log.example/\nwitness w TOKYO https://w.example/\nquorum w\n").as_bytes()
        )
        .is_ok()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_checkpoint_is_good_exactly_when_the_quorum_is_met(
        cut in 1_u8..6, signed: [bool; 6], needed in (1_usize..6, 1_usize..6, 1_usize..3),
    ) {
        let (left, right): (Vec<u8>, Vec<u8>) = (0..6).partition(|witness| *witness < cut);
        let needed = (needed.0.min(left.len()), needed.1.min(right.len()), needed.2);
        let mut policy = format!("log {}\n", NoteKey::new(name(ORIGIN), Signs::Text, key(1).public()));
        let witness = |witness: u8| (name(&format!("w{witness}.example")), key(10 + witness));
        for number in 0..6 {
            let (name, key) = witness(number);
            policy += &format!("witness {number} {}\n", NoteKey::new(name, Signs::Cosignature, key.public()));
        }
        let list = |members: &[u8]| members.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
        policy += &format!("group left {} {}\ngroup right {} {}\n", needed.0, list(&left), needed.1, list(&right));
        policy += &format!("group both {} left right\nquorum both\n", needed.2);
        let head = Log::counting(5, None).head(5);
        let mut note = checkpoint(head);
        let signers = |of: &[u8]| of.iter().filter(|witness| signed[usize::from(**witness)]).count();
        for number in (0..6).filter(|number| signed[usize::from(*number)]) {
            let (name, key) = witness(number);
            let continued = Continued::check(None, verified(head), &[]).unwrap();
            note.add(continued.cosign(name, &key, DateTime::UNIX_EPOCH).unwrap()).unwrap();
        }
        let met = usize::from(signers(&left) >= needed.0) + usize::from(signers(&right) >= needed.1);
        prop_assert_eq!(Policy::parse(policy.as_bytes()).unwrap().check(&note).is_ok(), met >= needed.2);
    }

    #[test]
    fn no_text_panics_and_what_parses_is_written_back(
        bytes in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>(), which in 0_usize..6,
    ) {
        let log = Log::counting(9, None);
        let proof = InclusionProof::new(4, log.inclusion(4, 9), &opening(4), checkpoint(log.head(9))).to_string();
        let consistency = ConsistencyProof { old: 4, hashes: log.consistency(4, 9), checkpoint: checkpoint(log.head(9)) };
        let (consistency, policy) = (consistency.to_string(), policy_text());
        let valid = [EXAMPLE, SUMDB, COSIGNED, &proof, &consistency, &policy].map(|text| text.as_bytes().to_vec());
        // Random bytes alone, and put over some of a valid text.
        let mut spliced = valid[which].clone();
        let at = cut.index(spliced.len());
        let until = spliced.len().min(at + bytes.len() % 8);
        spliced.splice(at..until, bytes.iter().copied().take(bytes.len() % 5));
        for bytes in [bytes, spliced] {
            let _ = Policy::parse(&bytes);
            let same = |text: String| text.as_bytes() == bytes;
            prop_assert!(Note::parse(&bytes).map_or(true, |parsed| same(parsed.to_string())));
            prop_assert!(SignedCheckpoint::parse(&bytes).map_or(true, |parsed| same(parsed.to_string())));
            prop_assert!(InclusionProof::parse(&bytes).map_or(true, |parsed| same(parsed.to_string())));
            prop_assert!(ConsistencyProof::parse(&bytes).map_or(true, |parsed| same(parsed.to_string())));
            let text = String::from_utf8_lossy(&bytes).into_owned();
            prop_assert!(text.parse::<NoteKey>().map_or(true, |key| key.to_string() == text));
            let _ = Opening::from_bytes(&bytes);
        }
    }
}
