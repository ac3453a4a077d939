//! Measures what work costs on this machine: the numbers in `storms/calibration.toml`, which simulations charge.

use crate::chain::{CHAIN, genesis, owner};
use crate::execution;
use commonware_consensus::{
    simplex::types::{Proposal, Subject},
    types::{Epoch, Round, View},
};
use commonware_cryptography::{
    certificate::{Scheme as _, Verifier as _},
    sha256,
};
use commonware_parallel::Sequential;
use commonware_utils::iter::NonEmpty;
use indicatif::ProgressBar;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use seawall_chain::{committee::Scheme, crypto::Batch};
use seawall_storm::calibration::Calibration;
use seawall_types::{AccountId, Domain};
use std::{
    fs::File,
    io::{Seek as _, SeekFrom, Write as _},
    time::Instant,
};

/// Committee on which votes are measured.
const VALIDATORS: u64 = 10;
const SIGNATURES: u64 = 1_000;
const ROUNDS: usize = 50;
const SYNCS: usize = 200;

/// Median of `rounds` runs, in microseconds.
fn median(rounds: usize, mut run: impl FnMut()) -> f64 {
    let mut taken: Vec<f64> = (0..rounds)
        .map(|_| {
            let begun = Instant::now();
            run();
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    taken.sort_by(f64::total_cmp);
    taken[taken.len() / 2]
}

/// Measures this machine. `accounts` are those that actions are executed over.
///
/// # Errors
/// If a file cannot be written, or the execution benchmark fails.
pub fn measure(accounts: u64, progress: &ProgressBar) -> anyhow::Result<Calibration> {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    progress.set_message("signatures");
    let identity = owner(AccountId(1));
    let sign_us = median(ROUNDS, || {
        std::hint::black_box(identity.sign(
            Domain::Block,
            CHAIN,
            std::hint::black_box(b"a header's worth of bytes"),
        ));
    });
    let mut batch = Batch::new(CHAIN);
    for account in (1..=SIGNATURES).map(AccountId) {
        let identity = owner(account);
        let message = account.get().to_be_bytes().to_vec();
        let signature = identity.sign(Domain::Action, CHAIN, &message);
        batch.add(&identity.key(), Domain::Action, message, &signature);
    }
    let mut good = true;
    let verify_us = median(ROUNDS, || good &= batch.verify(&mut rng, &Sequential)) / SIGNATURES as f64;
    anyhow::ensure!(good, "a good signature did not verify");

    progress.set_message("votes");
    let (genesis, dealt) = genesis(VALIDATORS, 0, &mut rng)?;
    let committee = genesis.committee();
    let schemes: Vec<Scheme> =
        dealt.members.iter().filter_map(|(_, share)| committee.signer(share.clone())).collect();
    anyhow::ensure!(schemes.len() as u64 == VALIDATORS, "a dealt share is not of its group");
    let proposal =
        Proposal::new(Round::new(Epoch::zero(), View::new(7)), View::new(6), sha256::Digest([9; 32]));
    let subject = || Subject::Notarize { proposal: &proposal };
    let vote_sign_us = median(ROUNDS, || {
        std::hint::black_box(schemes[0].sign(subject()));
    });
    let votes: Vec<_> =
        schemes.iter().take(committee.quorum()).filter_map(|scheme| scheme.sign(subject())).collect();
    let mut made = None;
    let certificate_make_us = median(ROUNDS, || {
        let checked = schemes[0].verify_attestations(&mut rng, subject(), votes.clone(), &Sequential);
        made = NonEmpty::try_new(checked.verified.into_iter())
            .and_then(|votes| schemes[0].assemble(votes, &Sequential).ok());
    });
    let made = made.ok_or_else(|| anyhow::anyhow!("a quorum of votes made no certificate"))?;
    let certificate_verify_us = median(ROUNDS, || {
        good &= schemes[1].verify_certificate(&mut rng, subject(), &made, &Sequential);
    });
    anyhow::ensure!(good, "a good certificate did not verify");

    progress.set_message("disk");
    let mut file: File = tempfile::tempfile()?;
    let page = [7u8; 4_096];
    let mut failed = None;
    let sync_us = median(SYNCS, || {
        let synced =
            file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&page)).and_then(|()| file.sync_data());
        failed = failed.take().or(synced.err());
    });
    if let Some(error) = failed {
        return Err(error.into());
    }

    let spec = execution::Spec { accounts, actions: 10_000, blocks: 5 };
    let executed = execution::run(&spec, progress)?;
    let action_us = executed.total_ms.median * 1e3 / spec.actions as f64;
    let round = |value: f64| (value * 10.0).round() / 10.0;
    Ok(Calibration {
        sign_us: round(sign_us),
        verify_us: round(verify_us),
        vote_sign_us: round(vote_sign_us),
        certificate_make_us: round(certificate_make_us),
        certificate_verify_us: round(certificate_verify_us),
        action_us: round(action_us),
        sync_us: round(sync_us),
    })
}
