//! Chains that their own committee signed and that are wrong all the same: an audit says where and why.

mod common;

use common::*;
use commonware_codec::{Copying, Decode as _, DecodeExt as _};
use commonware_consensus::simplex::types::{Finalization, Finalize};
use commonware_cryptography::Digestible as _;
use commonware_parallel::Sequential;
use commonware_runtime::{Runner as _, Supervisor as _, deterministic};
use commonware_utils::{non_empty, sys_rng};
use seawall_chain::{
    archives::Certificate,
    audit::{AuditError, Audited, Auditor},
    block::{Block, body_digest, from_consensus},
    crypto::Identity,
};
use seawall_node::export::export;
use seawall_types::*;
use std::fs;

type Pair = (Block, Option<Certificate>);

/// The chain of the fixture, read from an export as the format is documented.
fn chain() -> Vec<Pair> {
    let fixture = Fixture::get();
    let copy = fixture.copy();
    let file = copy.path().join("out");
    export(copy.path(), &fixture.genesis, &fixture.commitment, &file, |_| {}).unwrap();
    let bytes = fs::read(&file).unwrap();
    assert_eq!(bytes[..8], *b"SEAWALL\0");
    assert_eq!(bytes[8..12], 1u32.to_be_bytes());
    assert_eq!(bytes[12..20], CHAIN.get().to_be_bytes());
    let last = u64::from_be_bytes(bytes[52..60].try_into().unwrap());
    let mut rest = &bytes[60..bytes.len() - 32];
    let mut record = || {
        let (length, tail) = rest.split_at(4);
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let (record, tail) = tail.split_at(length);
        rest = tail;
        record
    };
    let chain: Vec<Pair> = (0..last)
        .map(|_| {
            let block = Block::decode(Copying(record())).unwrap();
            let certificate = Some(record())
                .filter(|bytes| !bytes.is_empty())
                .map(|bytes| Certificate::decode_cfg(Copying(bytes), &()).unwrap());
            (block, certificate)
        })
        .collect();
    assert!(rest.is_empty() && chain.len() as u64 >= BLOCKS);
    chain
}

/// Signs a changed block again, as its leader, and certifies it, as the whole committee.
fn resign((block, certificate): &mut Pair) {
    let fixture = Fixture::get();
    let (identity, share) = &fixture.dealt.members[0];
    block.header.body = body_digest(&block.body);
    *block = Block::sign(block.context.clone(), block.header.clone(), block.body.clone(), identity);
    if let Some(certificate) = certificate {
        let scheme = fixture.genesis.committee().signer(share.clone()).unwrap();
        let mut proposal = certificate.proposal.clone();
        proposal.payload = block.digest();
        let votes = [Finalize::sign(&scheme, proposal).unwrap()];
        *certificate = Finalization::from_finalizes(&scheme, non_empty![@votes.iter()], &Sequential).unwrap();
    }
}

fn audit(chain: &[Pair]) -> Result<Audited, AuditError> {
    let fixture = Fixture::get();
    deterministic::Runner::default().start(|context| async move {
        let mut rng = sys_rng();
        let mut auditor =
            Auditor::new(context.child("audit"), "t", &fixture.genesis, &fixture.commitment, Sequential)
                .await?;
        for (block, certificate) in chain {
            auditor.step(&mut rng, block, certificate.clone()).await?;
        }
        auditor.finish(&mut rng).await
    })
}

fn diverges(chain: &[Pair], at: u64, name: &str) {
    match audit(chain) {
        Err(AuditError::Divergence { height, field, detail }) => {
            assert_eq!((height, field), (Height(at), name), "{detail}");
        }
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn each_lie_of_a_committee_is_found_at_its_block() {
    let chain = chain();
    let good = audit(&chain).unwrap();
    assert_eq!(good.height.get(), chain.len() as u64);
    let at = 20;
    let lie = |change: &dyn Fn(&mut Block)| {
        let mut chain = chain.clone();
        let pair = &mut chain[at as usize - 1];
        change(&mut pair.0);
        resign(pair);
        chain
    };
    // Signing again what did not change changes nothing.
    assert_eq!(audit(&lie(&|_| {})).unwrap(), good);
    let other = Digest([9; 32]);
    diverges(&lie(&|block| block.header.state_root = other), at, "state_root");
    diverges(&lie(&|block| block.header.exits_root = other), at, "exits_root");
    diverges(&lie(&|block| block.header.ops.root = other), at, "ops.root");
    diverges(&lie(&|block| block.header.ops.start += 1), at, "ops.start");
    diverges(&lie(&|block| block.header.ops.end += 1), at, "ops.end");
    diverges(&lie(&|block| block.header.outcomes_root = other), at, "form");
    diverges(&lie(&|block| block.header.epoch = 1), at, "form");
    diverges(&lie(&|block| block.header.chain = ChainId(1)), at, "form");
    diverges(&lie(&|block| block.header.parent = other), at, "parent");
    diverges(&lie(&|block| block.header.height = Height(at + 1)), at, "height");
    diverges(&lie(&|block| block.header.time.0 += 1), at, "execution");
    diverges(&lie(&|block| block.body.observations.clear()), at, "form");
    diverges(&lie(&|block| block.body.observations[0].prices.clear()), at, "signatures");
    diverges(&lie(&|block| block.context.leader = Identity::insecure(1).public()), at, "form");
    let forged = signed(AccountId(1), 1, 100, Action::Transfer { to: AccountId(2), amount: Atoms(1) });
    let steal = |account: u64| {
        let mut forged = forged.clone();
        forged.account = AccountId(account);
        lie(&move |block| {
            block.body.actions.push(forged.clone());
            block.body.actions.sort_by_key(|action| (action.action.lane(), action.rescue_order()));
        })
    };
    // In the name of another user: the committee cannot sign for him.
    diverges(&steal(3), at, "signatures");
    diverges(&steal(99_999), at, "actions");
    // What he did sign is executed, and then the state is another.
    diverges(&steal(1), at, "state_root");
}

#[test]
fn certificates_must_be_the_committees_and_cover_the_last_block() {
    let chain = chain();
    let at = chain.iter().position(|(_, certificate)| certificate.is_some()).unwrap();
    let mut swapped = chain.clone();
    let next = (at + 1..chain.len()).find(|place| chain[*place].1.is_some()).unwrap();
    swapped[at].1 = chain[next].1.clone();
    diverges(&swapped, at as u64 + 1, "certificate");

    // A certificate is for a proposal: the signature of one does not fit another.
    let mut forged = chain.clone();
    let stolen = chain[next].1.clone().unwrap().certificate;
    forged[at].1.as_mut().unwrap().certificate = stolen;
    diverges(&forged, at as u64 + 1, "certificate");

    let mut bare = chain.clone();
    let last = bare.len();
    bare[last - 1].1 = None;
    diverges(&bare, last as u64, "certificate");
    // Below a certified block none is needed.
    let mut sparse = chain.clone();
    sparse[..last - 1].iter_mut().for_each(|pair| pair.1 = None);
    let audited = audit(&sparse).unwrap();
    assert_eq!((audited.certificates, audited.height.get()), (1, last as u64));
    assert_eq!(audited.digest, from_consensus(chain[last - 1].0.digest()));
}
