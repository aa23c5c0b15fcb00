//! The instances that a call may go to: found by number, walked nearest first.

use super::bits::{BLOCK, Bits};
use super::index::Blocks;
use super::query::Query;
use super::service::{Instance, Lookup, ServiceRoutes};

/// Instances that match and can be reached; at least one.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    pub(super) service: &'a ServiceRoutes,
    pub(super) query: Query<'a>,
    /// Which steps of the query narrowed the choice, the first in the lowest bit.
    pub(super) honoured: u32,
    /// The block where the nearest is.
    pub(super) block: u32,
    /// All of that block.
    pub(super) bits: Bits,
}

impl<'a> Candidates<'a> {
    /// The service.
    #[must_use]
    pub fn service(&self) -> &'a ServiceRoutes {
        self.service
    }

    /// The nearest of all.
    #[must_use]
    pub fn first(&self) -> &'a Instance {
        &self.service.instances[self.first_at()]
    }

    /// Those of the nearest group that has any.
    #[must_use]
    pub fn nearest(&self) -> Matches<'a> {
        self.up_to(self.service.end_of_group(self.first_at()), true)
    }

    /// All of them, nearest first: those that are preferred, then the others.
    #[must_use]
    pub fn all(&self) -> Matches<'a> {
        self.up_to(self.service.reachable, self.honoured == 0)
    }

    /// One of the nearest group, chosen by `chance`. Even among all of it; in a group that is not
    /// within one block of 256, the first that matches from a place chosen evenly.
    #[must_use]
    pub fn pick(&self, chance: u64) -> &'a Instance {
        let of = |count: usize| ((u128::from(chance) * count as u128) >> 64) as usize;
        let first = self.first_at();
        let end = self.service.end_of_group(first);
        if end <= (self.block as usize + 1) * BLOCK {
            let group = self.bits.and(self.service.span(self.block, first, end));
            let at =
                group.nth(of(group.len())).map_or(first, |at| self.block as usize * BLOCK + at);
            return &self.service.instances[at];
        }
        let start = first + of(end - first);
        let found = self.next_in(start, end).or_else(|| self.next_in(first, start));
        &self.service.instances[found.unwrap_or(first)]
    }

    /// The first match from one place and before another.
    fn next_in(&self, start: usize, end: usize) -> Option<usize> {
        let block = u32::try_from(start / BLOCK).ok()?;
        let blocks = self.service.index.blocks(&self.query).from(block);
        let near = blocks.take_while(|block| *block as usize * BLOCK < end);
        near.into_iter().find_map(|block| {
            let held = self.held(block).and(self.service.span(block, start, end));
            held.first().map(|at| block as usize * BLOCK + at)
        })
    }

    fn first_at(&self) -> usize {
        self.block as usize * BLOCK + self.bits.first().expect("candidates are never none")
    }

    /// Those of a block that hold what is required and what is honoured, in reach or not.
    fn held(&self, block: u32) -> Bits {
        let held = self.service.required(block, &self.query);
        if self.honoured == 0 || held.is_empty() {
            return held;
        }
        held.and(self.service.honoured(block, &self.query, self.honoured))
    }

    /// Whether the instance at this place of the service is among them. Places out of reach may
    /// be, where they match.
    #[must_use]
    pub fn has(&self, place: usize) -> bool {
        let Ok(block) = u32::try_from(place / BLOCK) else { return false };
        let bits = if block == self.block { self.bits } else { self.held(block) };
        bits.has(place % BLOCK)
    }

    /// All that hold what is required, whatever is preferred; `None` when that is what they are.
    #[must_use]
    pub fn widened(&self) -> Option<Self> {
        if self.honoured == 0 {
            return None;
        }
        match self.service.matching(self.query) {
            Lookup::Found(wider) => Some(wider),
            Lookup::Unknown | Lookup::NoMatch(_) | Lookup::Unreachable(_) => None,
        }
    }

    /// What narrowed the choice, in turn, as text.
    #[must_use]
    pub fn narrowed_by(&self) -> Vec<String> {
        let steps = self.query.steps().enumerate();
        let honoured = steps.filter(|(at, _)| self.honoured >> at & 1 == 1);
        honoured.map(|(_, step)| step.to_string()).collect()
    }

    /// Whether an instance that matches is among those that are preferred.
    pub(crate) fn prefers(&self, one: &Instance) -> bool {
        self.up_to(self.service.reachable, true).any(|other| other.key == one.key)
    }

    /// With every preference, in its turn, that leaves something.
    pub(super) fn narrowed(mut self) -> Self {
        let one_block = self.service.index.len() == 1;
        for (at, step) in self.query.steps().enumerate() {
            if one_block {
                let fewer = self.bits.and(self.service.step(self.block, step));
                if !fewer.is_empty() {
                    (self.bits, self.honoured) = (fewer, self.honoured | 1 << at);
                }
                continue;
            }
            let tried = Self { honoured: self.honoured | 1 << at, ..self };
            // What matched nowhere before this block does not with more asked of it.
            let blocks = self.service.index.blocks(&self.query).from(self.block);
            let found = blocks.into_iter().find_map(|block| {
                let bits = self.service.in_reach(block, tried.held(block));
                (!bits.is_empty()).then_some(Self { block, bits, ..tried })
            });
            self = found.unwrap_or(self);
        }
        self
    }

    fn up_to(&self, end: usize, only_preferred: bool) -> Matches<'a> {
        let bits = self.bits.and(self.service.span(self.block, 0, end));
        let blocks = self.service.index.blocks(&self.query);
        let rest = (!only_preferred).then_some(blocks);
        let (block, blocks) = (self.block, blocks.from(self.block + 1));
        Matches { of: *self, end, bits, block, blocks, rest, others: false }
    }
}

/// Instances that match, nearest first.
#[derive(Clone, Debug)]
pub struct Matches<'a> {
    of: Candidates<'a>,
    end: usize,
    /// Of the block at hand those that are still to come.
    bits: Bits,
    block: u32,
    blocks: Blocks<'a>,
    /// The blocks to be gone through then for what is not preferred.
    rest: Option<Blocks<'a>>,
    /// That is what is being done.
    others: bool,
}

impl<'a> Matches<'a> {
    /// Goes on to the next block, and after the last to the first for what is not preferred.
    fn next_block(&mut self) -> Option<()> {
        let block = self.blocks.next().filter(|block| (*block as usize) * BLOCK < self.end);
        let Some(block) = block else {
            self.blocks = self.rest.take()?;
            self.others = true;
            return self.next_block();
        };
        let service = self.of.service;
        self.block = block;
        let held = if self.others {
            let honoured = service.honoured(block, &self.of.query, self.of.honoured);
            service.required(block, &self.of.query).without(honoured)
        } else {
            self.of.held(block)
        };
        self.bits = held.and(service.span(block, 0, self.end));
        Some(())
    }
}

impl<'a> Iterator for Matches<'a> {
    type Item = &'a Instance;

    fn next(&mut self) -> Option<&'a Instance> {
        loop {
            if let Some(at) = self.bits.take() {
                return Some(&self.of.service.instances[self.block as usize * BLOCK + at]);
            }
            self.next_block()?;
        }
    }
}
