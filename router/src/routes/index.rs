//! Which instances hold what is asked, for services of any size: blocks, and for those of more than
//! one which block can hold what.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use proto::label;
use proto::selector::Requirement;

use super::bits::BLOCK;
use super::block::Block;
use super::query::Query;
use super::service::Instance;

/// The labels of all instances of a service.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// Most services have no more: it lies where the service does.
    first: Block,
    more: Option<Box<More>>,
}

#[derive(Clone, Debug)]
struct More {
    /// All but the first.
    blocks: Vec<Block>,
    /// By the hash of a label, the blocks that may carry it, ascending.
    by_label: HashMap<u64, Vec<u32>, FixedState>,
}

/// The blocks that can hold what is asked, ascending.
#[derive(Clone, Copy, Debug)]
pub(super) enum Blocks<'a> {
    All { next: u32, end: u32 },
    Listed(&'a [u32]),
}

impl Blocks<'_> {
    /// Without those before `block`.
    pub(super) fn from(self, block: u32) -> Self {
        match self {
            Self::All { next, end } => Self::All { next: next.max(block), end },
            Self::Listed(all) => Self::Listed(&all[all.partition_point(|one| *one < block)..]),
        }
    }
}

impl Iterator for Blocks<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match self {
            Self::All { next, end } if *next < *end => {
                *next += 1;
                Some(*next - 1)
            }
            Self::All { .. } => None,
            Self::Listed(all) => {
                let (first, rest) = all.split_first()?;
                *all = rest;
                Some(*first)
            }
        }
    }
}

impl Index {
    pub(super) fn of(instances: &[Instance]) -> Self {
        let mut blocks = instances.chunks(BLOCK).map(Block::of);
        let first = blocks.next().unwrap_or_else(|| Block::of(&[]));
        let blocks: Vec<_> = blocks.collect();
        let more = (!blocks.is_empty()).then(|| {
            let mut by_label: HashMap<u64, Vec<u32>, FixedState> = HashMap::default();
            for (at, block) in (0u32..).zip(std::iter::once(&first).chain(&blocks)) {
                let mut list = |hash| {
                    let listed = by_label.entry(hash).or_default();
                    if listed.last() != Some(&at) {
                        listed.push(at);
                    }
                };
                for key in block.keys() {
                    let hash = label::hash(key, None);
                    list(hash);
                    block.values(hash, key).for_each(|(v, _)| list(label::hash(key, Some(v))));
                }
            }
            Box::new(More { blocks, by_label })
        });
        Self { first, more }
    }

    pub(super) fn block(&self, at: u32) -> &Block {
        match (at.checked_sub(1), &self.more) {
            (Some(at), Some(more)) => &more.blocks[at as usize],
            (_, _) => &self.first,
        }
    }

    pub(super) fn len(&self) -> u32 {
        let more = self.more.as_ref().map_or(0, |more| more.blocks.len());
        u32::try_from(more + 1).expect("instances are counted in 32 bits")
    }

    /// Blocks outside of which nothing can hold all that `query` requires.
    #[inline]
    pub(super) fn blocks(&self, query: &Query<'_>) -> Blocks<'_> {
        let all = Blocks::All { next: 0, end: self.len() };
        let Some(more) = &self.more else { return all };
        let lists = query.required().filter_map(plain);
        let lists = lists.map(|hash| more.by_label.get(&hash).map_or(&[][..], Vec::as_slice));
        lists.min_by_key(|listed| listed.len()).map_or(all, Blocks::Listed)
    }
}

/// The hash of the one label that a thing must carry to hold `one`.
fn plain(one: &Requirement) -> Option<u64> {
    match one.values() {
        _ if one.is_negated() => None,
        [] => Some(one.key_hash()),
        [value] => value.probe(one.key()).map(|(_, _, hash)| hash),
        _ => None,
    }
}
