'use strict';
// Shows what /info.json says, asks for it again each second, and sends the commands.

const REFRESH_MS = 1000;
const LONGEST_BACK_OFF_MS = 5000;
const INFO_LIMIT_MS = 3000;
const COMMAND_LIMIT_MS = 120000; // a reload may have to wait for a request that blocks
const SLOW_MS = 2000; // an answer that takes longer makes the figures stale
const CONFIRM_SECONDS = 5;

// ---- Writing to the page, only where something differs ----

const byId = id => document.getElementById(id);

function setText(id, text) {
    if (byId(id).textContent !== String(text)) byId(id).textContent = text;
}

/** A line that is there only while it has something to say. */
function setLine(id, text) {
    setText(id, text);
    if (byId(id).hidden !== !text) byId(id).hidden = !text;
}

/** The state in the title, and for screen readers: these speak only when the text changes. */
function setTitle(title, announcement) {
    if (document.title !== `${title} – redis-proxy`) document.title = `${title} – redis-proxy`;
    setText('announcement', announcement);
}

function element(tag, className, ...content) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...content);
    return made;
}

const capitalized = word => word.charAt(0).toUpperCase() + word.slice(1);
const counted = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`;
const clockTime = date => date.toLocaleTimeString('en-GB');
const milliseconds = value => `${Number(value.toFixed(2))} ms`;
const byWhom = by => by === 'http' ? 'by HTTP' : `by ${by}`;

function duration(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    const [days, hours, minutes] = [86400, 3600, 60].map(unit => Math.floor(whole / unit));
    if (days) return `${days} d ${hours % 24} h`;
    if (hours) return `${hours} h ${minutes % 60} min`;
    return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

// ---- What the proxy says ----

let announced = { state: '', text: '' };

function show(info) {
    const state = capitalized(info.state_str) + (info.uplink_up === false ? ', uplink away' : '');
    const { uplink } = info.config;
    const figures = {
        state, active: info.active_requests, waiting: info.waiting_requests,
        clients: info.clients, raw: info.raw_connections,
        uplink: uplink.addr, 'uplink-how': uplink.tls ? '(TLS)' : '(no TLS)',
        carrying: carried(info.carrying) || 'nothing but a database',
        generation: info.generation, uptime: duration(info.uptime_seconds), version: info.version,
    };
    for (const [id, text] of Object.entries(figures)) setText(id, text);
    setLine('uplink-line', uplinkLine(info));
    setLine('remarks', (info.remarks ?? []).map(it => `${capitalized(it)}.`).join(' '));
    setLine('pause-line', pauseLine(info));
    setLine('pause-end', pauseEnd(info));
    setLine('reloading', reloadingLine(info.reloading));
    showRecords('reloads', info.reloads, reloadItem);
    showSwitching(info.switching);
    showRecords('switches', info.switches, switchItem);
    document.body.dataset.uplink = { true: 'up', false: 'away' }[info.uplink_up] ?? 'unknown';
    if (announced.state !== state) {
        document.body.dataset.state = info.state_str;
        announced = { state, text: `State: ${state}. ${pauseEnd(info)}` };
    }
    setTitle(state, announced.text);
}

function uplinkLine({ uplink_up, uplink_error }) {
    if (uplink_up === false) return `The uplink does not answer: ${uplink_error}`;
    return uplink_error ? `The uplink: ${uplink_error}.` : '';
}

/** What sessions carry beside a database, as counts of each; empty if nothing. */
function carried(counts) {
    const nouns = { transactions: 'open transaction', watching: 'with watched keys', watched: 'with watched keys',
        touched: 'with touched keys', blocked: 'waiting for data', subscribed: 'subscribed',
        tracking: 'caching', monitors: 'monitor', silent: 'without replies' };
    const text = (name, count) => ['transactions', 'monitors'].includes(name)
        ? counted(count, nouns[name]) : `${count} ${nouns[name]}`;
    return Object.entries(counts ?? {}).filter(([name, count]) => count && nouns[name])
        .map(([name, count]) => text(name, count)).join(', ');
}

function pauseLine(info) {
    const pausing = info.state_str === 'pausing';
    if (info.paused_seconds == null && !pausing && info.state_str !== 'paused') return '';
    return (info.paused_seconds == null ? '' : `Pause is on for ${duration(info.paused_seconds)}. `)
        + `Clients are waiting: ${counted(info.waiting_requests, 'request')} held back`
        + (pausing ? `, ${info.active_requests} still running.` : '.');
}

function pauseEnd(info) {
    if (info.paused_seconds == null) return '';
    if (info.pause_ends_in_seconds == null) return 'It does not end by itself: press Unpause.';
    return `It ends by itself in ${duration(Math.ceil(info.pause_ends_in_seconds))}.`;
}

function reloadingLine(reloading) {
    if (!reloading) return '';
    return `A reload (${byWhom(reloading.by)}) is ${reloading.stage}, for ${duration(reloading.seconds)}.`;
}

// ---- The last reloads and switches: an entry once made stays as it is ----

const recordItems = { reloads: new Map(), switches: new Map() };

function showRecords(name, records, itemOf) {
    const before = recordItems[name];
    const keys = records.map(record => JSON.stringify(record));
    const items = new Map(keys.map((key, i) => [key, before.get(key) ?? itemOf(records[i])]));
    for (const [key, item] of before) {
        if (!items.has(key)) item.remove();
    }
    const list = byId(name);
    [...items.values()].forEach((item, position) => {
        const there = list.children[position] ?? null;
        if (there !== item) list.insertBefore(item, there);
    });
    recordItems[name] = items;
    setLine(`no-${name}`, records.length ? '' : 'None since the start.');
}

function recordItem(record, facts) {
    const done = record.result === 'done';
    const at = new Date(record.at_unix_seconds * 1000);
    const time = element('time', '', at.toLocaleString('sv-SE')); // 2025-11-22 03:12:45
    time.dateTime = at.toISOString();
    const result = element('strong', '', `${done ? '✓' : '✗'} ${capitalized(record.result)}`);
    return element('li', done ? 'done' : 'not-done',
        element('p', '', result, ' ', time, ` ${byWhom(record.by)}`),
        element('p', '', facts), ...troubles(record));
}

function reloadItem(reload) {
    const done = reload.result === 'done';
    const facts = [`Generation ${reload.generation}`, `uplink ${reload.uplink}`,
        reloadFacts(reload, done), `took ${milliseconds(reload.duration_ms)}`].join(', ');
    return recordItem(reload, facts + (done ? '.' : '. The configuration in use was kept.'));
}

function reloadFacts(reload, done) {
    const pause = reload.pause_ms != null ? `pause ${milliseconds(reload.pause_ms)}`
        : done ? 'no pause was needed' : 'no pause';
    const having = carried(reload.handed_over);
    return `${pause}, ${counted(reload.sessions_moved, 'session')} moved${having && ` (${having})`}, `
        + `${reload.sessions_closed} closed`;
}

/** The faults, what held it up and who was closed, each on a line of its own. */
function troubles({ faults, held_up_by, closed, warnings, not_undone }) {
    const titled = (title, lines) => !lines?.length ? [] : [element('p', '', title),
        element('ul', 'faults', ...lines.map(line => element('li', '', line)))];
    const requests = held_up_by?.map(({ command, client, seconds }) =>
        `${command} of ${client}, running for ${seconds.toFixed(1)} s`);
    const clients = closed?.map(({ client, reason }) => `${client}: ${reason}`);
    return [...titled('Faults:', faults), ...titled('Held up by:', requests), ...titled('Closed:', clients),
        ...titled('Not undone:', not_undone), ...titled('Warnings:', warnings)];
}

/** What a reload would do. */
function predicted(prediction) {
    const { uplink, uplink_changes, moved, closed, waited_for, carrying } = prediction;
    if (!uplink_changes) return `The uplink stays ${uplink}: nobody is moved, nothing is paused.`;
    const having = carried(carrying);
    return `${counted(moved, 'client')} would be moved to ${uplink}${having && ` (${having})`}, ${closed.length} closed`
        + (waited_for ? `; ${counted(waited_for, 'command')} would be waited for` : '')
        + (prediction.replica ? '; it is a replica of the present uplink, and would be waited for' : '')
        + (prediction.unknown_scripts ? `; ${counted(prediction.unknown_scripts, 'script')} that the proxy has not seen would be NOSCRIPT` : '')
        + (prediction.exact_messages ? '.' : '; of what is published past the proxy, subscribers may miss some.')
        + (prediction.warnings ?? []).map(warning => ` Warning: ${warning}.`).join('');
}

// ---- Asking ----

let question = null; // the AbortController of the question that is out
let nextRefresh = 0;
let failures = 0;
let failure = '';
let unansweredSince = null;
let lastAnswer = 'nothing is known yet';

async function ask(path, limitMs, controller, options) {
    const timer = setTimeout(() => controller.abort(), limitMs);
    // Not relative to the page: its address may have a password in it, which fetch refuses.
    const url = new URL(path, location.origin);
    try {
        const response = await fetch(url, { cache: 'no-store', signal: controller.signal, ...options });
        return { status: response.status, body: await response.json().catch(() => null) };
    } finally {
        clearTimeout(timer);
    }
}

function stopAsking() {
    clearTimeout(nextRefresh);
    question?.abort();
    question = null;
}

async function refresh() {
    stopAsking();
    if (document.hidden) return;
    const mine = question = new AbortController();
    unansweredSince ??= Date.now();
    probeUplink();
    try {
        const { status, body } = await ask('/info.json', INFO_LIMIT_MS, mine);
        if (question !== mine) return;
        if (status === 401) return showLoggedOut();
        if (status !== 200 || !body) throw new Error(`HTTP ${status}, without figures`);
        show(body);
        failures = 0;
        unansweredSince = null;
        lastAnswer = `showing what was known at ${clockTime(new Date())}`;
        document.body.removeAttribute('data-stale');
        setText('state-heading', 'State');
        setLine('notice', '');
    } catch (error) {
        if (question !== mine) return;
        failures += 1;
        failure = error.name === 'AbortError' ? 'took too long' : error.message;
        showSilence();
    }
    const backOff = Math.min(REFRESH_MS * 2 ** (failures - 1), LONGEST_BACK_OFF_MS);
    nextRefresh = setTimeout(refresh, failures ? backOff : REFRESH_MS);
}

let probing = false;

/** Has the proxy ask its uplink: info.json says what came of that last. */
async function probeUplink() {
    if (probing) return;
    probing = true;
    await fetch(new URL('/readyz', location.origin), { cache: 'no-store' }).catch(() => null);
    probing = false;
}

function showSilence() {
    const silentMs = Date.now() - unansweredSince;
    if (unansweredSince === null || document.hidden || (!failures && silentMs < SLOW_MS)) return;
    showStale('No answer', `No answer for ${duration(silentMs / 1000)}; ${lastAnswer}. `
        + `Still asking${failures ? ` (last: ${failure})` : ''}. `
        + 'Commands can be sent all the same: each says whether it was answered.');
}

function showLoggedOut() { // and ask no more
    unansweredSince = null;
    showStale('Logged out', 'Not logged in any more: reload this page to log in.');
}

function showStale(title, notice) {
    document.body.dataset.stale = '';
    setText('state-heading', 'Last known state');
    setLine('notice', notice);
    setTitle(title, `${title}.`);
}

// ---- Commands ----

function showAnswer(className, ...content) {
    byId('answer').className = className;
    byId('answer').replaceChildren(...content);
}

function showResult(name, answer) {
    const { status, body } = answer ?? {};
    const done = status === 200 && body?.ok === true;
    const text = done ? '.'
        : !answer ? ': no answer. Whether it was carried out is not known: see the state.'
            : `: ${body?.error ?? (status === 401 ? 'reload this page to log in' : `HTTP ${status}`)}`;
    const mark = element('strong', '', done ? '✓ Done' : '✗ Failed');
    showAnswer(done ? 'done' : 'not-done',
        element('p', '', mark, ` ${clockTime(new Date())} ${name}${text}`), ...troubles(body ?? {}),
        ...(body?.prediction ? [element('p', '', predicted(body.prediction))] : []),
        ...troubles(body?.prediction ?? {}), ...(body?.preflight ? [checks(body.preflight)] : []));
}

async function send(button, command, busyText, parameters = {}, limitMs = COMMAND_LIMIT_MS) {
    disarm();
    const name = button.textContent;
    button.ariaBusy = 'true';
    button.ariaDisabled = 'true'; // and not disabled: that would lose the keyboard's focus
    button.textContent = busyText;
    showAnswer('', busyText);
    const answer = await ask('/cmd/', limitMs, new AbortController(),
        { method: 'POST', body: new URLSearchParams({ cmd: command, ...parameters }) }).catch(() => null);
    button.textContent = name;
    button.ariaBusy = button.ariaDisabled = null;
    showResult(name, answer);
    refresh();
}

function onPress(button, act) {
    button.disabled = false; // without this script it can do nothing
    button.addEventListener('click', event => { if (!button.ariaBusy) act(event); });
    button.addEventListener('keydown', event => { // a key held down is one press
        if (event.repeat) event.preventDefault();
    });
}

for (const [command, busyText] of [['pause', 'Pausing…'], ['unpause', 'Unpausing…'], ['reload', 'Reloading…']]) {
    onPress(byId(command), () => send(byId(command), command, busyText));
}

onPress(byId('predict'), () => send(byId('predict'), 'reload', 'Predicting…', { dry_run: 'true' }));

// Some ask for a second press.
let armed = null; // the button, its text and its timer

function disarm() {
    if (!armed) return;
    clearTimeout(armed.timer);
    armed.button.classList.remove('armed');
    if (!armed.button.ariaBusy) armed.button.textContent = armed.text;
    armed = null;
}

function onSecondPress(button, verb, ofWhat, act) {
    onPress(button, event => {
        const pressed = armed?.button === button;
        if (pressed && event.detail > 1) return; // a double click confirms nothing
        disarm();
        if (pressed) return act();
        armed = { button, text: button.textContent };
        button.classList.add('armed');
        button.textContent = `Press again to ${verb}`;
        showAnswer('', element('p', '', `Press again within ${CONFIRM_SECONDS} s to ${verb} ${ofWhat()}.`));
        armed.timer = setTimeout(() => {
            disarm();
            showAnswer('', element('p', '', 'Nothing was done: it was not confirmed.'));
        }, CONFIRM_SECONDS * 1000);
    });
}

onSecondPress(byId('terminate'), 'terminate', () => counted(Number(byId('raw').textContent) || 0, 'raw connection'),
    () => send(byId('terminate'), 'terminate-raw-connections', 'Terminating…'));

// ---- Start, once all scripts are here ----

document.addEventListener('DOMContentLoaded', refresh);
setText('host', location.host);
document.addEventListener('visibilitychange', () => {
    if (!document.hidden) return refresh();
    stopAsking();
    if (!failures) unansweredSince = null;
});
setInterval(showSilence, REFRESH_MS);
