'use strict';
// The switch that is running, and those that have ended. Loaded after page.js, whose helpers it uses.

const STAGES = ['preflight', 'replicating', 'ready', 'paused', 'catching up', 'promoting', 'resumed', 'fencing'];
const UNLIMITED_MS = 2 ** 31 - 1; // a switch takes as long as the data need
const [PLOT_WIDTH, PLOT_HEIGHT] = [300, 60];

function bytes(count) {
    const units = ['B', 'kB', 'MB', 'GB', 'TB'];
    const unit = Math.min(Math.floor(Math.log10(Math.max(count, 1)) / 3), units.length - 1);
    return `${Number((count / 1000 ** unit).toFixed(unit ? 1 : 0))} ${units[unit]}`;
}

function showSwitching(now) {
    byId('switch-panel').hidden = !now;
    if (!now) return;
    setText('switch-from', now.from);
    setText('switch-to', now.to || '?');
    setText('switch-time', duration(now.seconds));
    setText('switch-waits', `Waiting: ${now.waiting_for}.`);
    showStages(now.stages);
    showSync(now.sync, now.snapshot);
    showLag(now);
    const button = byId('cancel-switch');
    if (!button.ariaBusy) button.disabled = !now.can_cancel;
}

/** Those that are over with their times, and those to come. */
function showStages(stages) {
    const known = stages.map(({ stage, ms }) => ms === null ? [stage, 'present', stage]
        : [stage, 'passed', `✓ ${stage} ${milliseconds(ms)}`]);
    const isRollingBack = stages.some(({ stage }) => stage === 'rolling back');
    const toCome = isRollingBack ? [] : STAGES.filter(stage => !stages.some(it => it.stage === stage));
    const all = [...known, ...toCome.map(stage => [stage, '', stage])];
    byId('stages').replaceChildren(...all.map(([, className, text]) => {
        const item = element('li', className, text);
        if (className === 'present') item.ariaCurrent = 'step';
        return item;
    }));
}

function showSync(sync, snapshot) {
    byId('sync-line').hidden = !sync;
    if (!sync) return;
    const bar = byId('sync');
    if (sync.total_bytes) {
        bar.max = sync.total_bytes;
        bar.value = sync.read_bytes;
    } else if (snapshot) {
        bar.max = snapshot.total_keys;
        bar.value = snapshot.keys;
    } else {
        bar.removeAttribute('value'); // how much it will be is not known
    }
    setText('synced', `${bytes(sync.read_bytes)}${sync.total_bytes ? ` of ${bytes(sync.total_bytes)}` : ''} copied${snapshot ? `, ${snapshot.keys} of ${snapshot.total_keys} keys` : ''}`);
}

/** Bytes behind, over time. */
function showLag({ lag, lag_bytes, lag_ms }) {
    byId('lag-figure').hidden = !lag.length;
    if (!lag.length) return;
    const most = Math.max(...lag.map(([, behind]) => behind), 1);
    const [begin, end] = [lag[0][0], lag.at(-1)[0]];
    const across = seconds => (seconds - begin) / Math.max(end - begin, 1e-3) * PLOT_WIDTH;
    const up = behind => PLOT_HEIGHT - behind / most * (PLOT_HEIGHT - 4) - 2;
    byId('lag-line').setAttribute('points', lag.map(([at, behind]) => `${across(at)},${up(behind)}`).join(' '));
    setText('lag-caption', `The new uplink is ${bytes(lag_bytes)} behind, and catches up in ${milliseconds(lag_ms)}; `
        + `${bytes(most)} at most in ${duration(end - begin)}.`);
}

function switchItem(record) {
    const { from, to, held_ms, sync_bytes, fenced, reason, duration_ms } = record;
    const done = record.result === 'done';
    const having = carried(record.handed_over);
    const facts = [`${from} → ${to || '?'}`,
        ...(sync_bytes == null ? [] : [`${bytes(sync_bytes)} copied`]),
        held_ms == null ? 'nobody was held' : `clients held for ${milliseconds(held_ms)}`,
        ...(done ? [`${counted(record.sessions_moved, 'session')} moved${having && ` (${having})`}`,
            `${record.sessions_closed} closed`, fenced ? 'the old uplink is its replica' : 'the old uplink is not fenced'] : []),
        `took ${milliseconds(duration_ms)}`].join(', ');
    const why = record.faults.length ? '' : ` ${capitalized(reason)}.`;
    return recordItem(record, done ? `${facts}.` : `${facts}.${why} Clients use the present uplink.`);
}

/** Each check of a preflight with its result. */
function checks(preflight) {
    const marks = { ok: '✓', warning: '!', failed: '✗', unknown: '?' };
    return element('ul', 'faults', ...preflight.checks.map(({ name, result, detail }) =>
        element('li', result === 'failed' ? 'not-done' : '', `${marks[result]} ${name} (${result}): ${detail}`)));
}

onPress(byId('check-switch'), () => send(byId('check-switch'), 'switch', 'Checking…', { dry_run: 'true' }));
onSecondPress(byId('switch'), 'switch', () => 'to the uplink in the configuration file, with the data',
    () => send(byId('switch'), 'switch', 'Switching…', {}, UNLIMITED_MS));
onPress(byId('cancel-switch'), () => send(byId('cancel-switch'), 'cancel-switch', 'Cancelling…'));
