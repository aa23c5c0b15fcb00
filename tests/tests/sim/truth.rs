//! The reference: what everybody must agree on once it has been quiet, said as plainly as it can be.

use std::collections::BTreeSet;

use proto::NodeId;

use crate::world::World;

/// What is wrong with the answers of some router, if all that live can hear each other.
///
/// - It reaches exactly the hosts that are alive.
/// - It finds exactly the instances that programs on them offer.
/// - The way to each host begins with a link that works, and goes on so to its end.
pub(crate) fn wrong(world: &World) -> Option<String> {
    let alive = world.alive();
    let living: BTreeSet<NodeId> = alive.iter().map(|at| world.hosts[*at].key.id()).collect();
    let mut offered = BTreeSet::new();
    for &at in &alive {
        let id = world.hosts[at].key.id();
        let here = world.hosts[at].offered.keys();
        offered.extend(here.map(|(service, instance)| (service.as_str(), id, instance.as_str())));
    }
    for &at in &alive {
        let Some(life) = &world.hosts[at].life else { continue };
        let reached =
            || life.routes.nodes().filter(|node| node.cost.is_finite()).map(|node| node.id);
        // By id, as `living` is.
        if !reached().eq(living.iter().copied()) {
            let reached: BTreeSet<NodeId> = reached().collect();
            let names = |ids: Vec<&NodeId>| {
                ids.iter().filter_map(|id| world.host_of(id)).collect::<Vec<_>>()
            };
            let missing = names(living.difference(&reached).collect());
            let dead = names(reached.difference(&living).collect());
            return Some(format!("n{at} does not reach {missing:?}, and reaches dead {dead:?}"));
        }
        let mut found = Vec::with_capacity(offered.len());
        for service in life.routes.services() {
            for one in service.reachable() {
                found.push((service.name.as_str(), one.node, &*one.id));
            }
        }
        found.sort_unstable();
        if !found.iter().eq(&offered) {
            let found: BTreeSet<_> = found.into_iter().collect();
            let missing: Vec<_> = offered.difference(&found).collect();
            let extra: Vec<_> = found.difference(&offered).collect();
            return Some(format!("n{at} does not find {missing:?}, and finds {extra:?}"));
        }
    }
    let linked = world.linked();
    // In a large world from some hosts only: there are as many ways as pairs.
    let some = alive.iter().step_by(alive.len().div_ceil(50));
    some.copied().find_map(|at| wrong_way(world, at, &alive, &linked))
}

/// Follows the way from one host to every other, each step by the answers of where it has come to.
fn wrong_way(
    world: &World,
    from: usize,
    alive: &[usize],
    linked: &BTreeSet<(usize, usize)>,
) -> Option<String> {
    for &to in alive {
        let target = world.hosts[to].key.id();
        let mut at = from;
        for step in 0.. {
            if at == to {
                break;
            }
            let life = world.hosts[at].life.as_ref()?;
            let next = life.routes.node(&target).and_then(|node| node.next);
            let next = next.and_then(|next| world.host_of(&next));
            match next {
                Some(next) if linked.contains(&(at, next)) && step <= alive.len() => at = next,
                next => {
                    return Some(format!(
                        "the way from n{from} to n{to} is broken at n{at}, step {step}: {next:?}"
                    ));
                }
            }
        }
    }
    None
}
