//! The program as an operator runs it: a validator process, its metrics, its log, and actions over its socket.

use seawall_devnet::{network::CHAIN, scenario::account_key};
use seawall_node::{
    front::{Answer, Client, DONE, SHED},
    serve,
};
use seawall_types::{
    AccountId, Action, Atoms, Domain, Height, Lane, MarketId, Nonce, Signature, SignedAction,
};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_seawall");
const SEED: u64 = 0;
const PATIENCE: Duration = Duration::from_secs(120);

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn signed(account: u64, nonce: u64, action: Action) -> SignedAction {
    let account = AccountId(account);
    let mut signed = SignedAction {
        chain: CHAIN,
        account,
        nonce: Nonce(nonce),
        expiry: Height(50_000),
        action,
        signature: Signature::default(),
    };
    signed.signature = account_key(account, SEED).sign(Domain::Action, CHAIN, &signed.message());
    signed
}

/// Asks again until there is an answer.
fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_validator_process_measures_its_lanes_beside_the_model_and_answers_on_its_socket() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("net");
    let port = free().port();
    let made = Command::new(PROGRAM)
        .args(["genesis", "--validators", "1", "--accounts", "200", "--starts-in-s", "0", "--out"])
        .arg(&out)
        .args(["--port", &port.to_string()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let config = out.join("validator-0.toml");
    let (metrics, submit) = (free(), free());
    let text = fs::read_to_string(&config).unwrap();
    let text = format!("metrics = \"{metrics}\"\nsubmit = \"{submit}\"\n{text}")
        .replace("format = \"text\"", "format = \"json\"\nfile = \"log.json\"");
    fs::write(&config, text).unwrap();
    let _running = Running(
        Command::new(PROGRAM)
            .args(["validator", "--config"])
            .arg(&config)
            .env_remove("SEAWALL_LOG")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let blocks = || serve::value(&serve::fetch(metrics).ok()?, "final_blocks_total");
    wait("three blocks", || blocks().filter(|blocks| *blocks >= 3.0));

    // A rescue is told of once more, when it is final; a trade is answered once.
    let mut rescues = Client::open(submit, Lane::Rescue, PATIENCE).unwrap();
    let mut trades = Client::open(submit, Lane::Trade, PATIENCE).unwrap();
    let mut last = None;
    for nonce in 1..=20 {
        rescues.submit(&signed(1, nonce, Action::ScheduleCancel { at: None })).unwrap();
        let (first, told) = (rescues.answer().unwrap(), rescues.answer().unwrap());
        assert!(!first.told && told.told && told.id == first.id, "{first:?} {told:?}");
        assert_eq!(told.state, DONE, "{told:?}");
        assert!(told.height > Height(0));
        last = Some(told);
        trades.submit(&signed(3, nonce, Action::SetLeverage { market: MarketId(0), leverage: 2 })).unwrap();
        let answer = trades.answer().unwrap();
        assert!(!answer.told && answer.state != SHED, "{answer:?}");
    }
    let last = last.unwrap();
    rescues.ask(last.id).unwrap();
    assert_eq!(rescues.answer().unwrap(), Answer { told: false, ..last });
    // An action of the other lane ends the connection.
    trades.submit(&signed(1, 99, Action::Transfer { to: AccountId(2), amount: Atoms(1) })).unwrap();
    assert!(trades.answer().is_err());

    // Counters at once; figures, measured and predicted, when a window has ended.
    let lane = |name: &str, labels: &str| {
        let text = serve::fetch(metrics).ok()?;
        serve::value(&text, &format!("lanes_{name}{{{labels}}}"))
    };
    let pooled = wait("pooled rescues", || lane("pooled_total", "lane=\"rescue\""));
    let carried = wait("carried rescues", || lane("carried_total", "lane=\"rescue\""));
    let delayed = wait("delays of rescues", || lane("delay_ms_count", "lane=\"rescue\""));
    assert_eq!((pooled, carried, delayed), (20.0, 20.0, 20.0));
    let figure = |kind: &str, name: &str| {
        let text = serve::fetch(metrics).unwrap();
        let line = text.lines().find(|line| {
            line.starts_with(&format!("lanes_{kind}{{"))
                && line.contains("lane=\"rescue\"")
                && line.contains(&format!("figure=\"{name}\""))
        })?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    for name in ["arrivals_per_s", "carried_per_s", "delay_mean_ms", "delay_p50_ms", "delay_p99_ms"] {
        let (measured, predicted) =
            wait(name, || Some((figure("measured", name)?, figure("predicted", name)?)));
        assert!(measured.is_finite() && predicted.is_finite(), "{name}: {measured} {predicted}");
        if name.starts_with("delay") {
            assert!(measured > 0.0 && predicted > 0.0, "{name}: {measured} {predicted}");
        }
    }
    let log = fs::read_to_string(out.join("log.json")).unwrap();
    assert!(!log.is_empty() && log.lines().all(|line| line.starts_with("{\"timestamp\"")), "{log}");
}

#[test]
fn the_model_is_asked_on_the_command_line_and_refuses_by_name() {
    let ask = |args: &[&str]| Command::new(PROGRAM).arg("model").args(args).output().unwrap();
    let answer = ask(&["--trades", "1000000", "--json"]);
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let json: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert!(json["prediction"]["trade"]["utilisation"].as_f64().unwrap() > 1.0);
    assert!(json["prediction"]["rescue"]["delay"]["steady"]["p99_ms"].is_f64());
    let refused = ask(&["--leverage", "0.5"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("leverage: 0.5"));
}
