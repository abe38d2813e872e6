// What users of node-redis do: transactions with WATCH, blocking pops, subscriptions.
//
// Usage: node_redis.js PORT COUNT. Each does its work COUNT times at least, and goes on until the
// standard input ends. Fails with a stack trace if anything is not as it must be.
'use strict';
const assert = require('assert');
const { createClient, WatchError } = require('redis');

const [port, count] = process.argv.slice(2).map(Number);
let over = false;
process.stdin.resume().on('end', () => { over = true; });
const goesOn = done => done < count || !over;

async function connect() {
    const client = createClient({ socket: { port, reconnectStrategy: false }, name: 'node' });
    client.on('error', why => { throw why; });
    await client.connect();
    return client;
}

async function transactions() {
    const client = await connect();
    let done = 0;
    while (goesOn(done)) {
        await client.watch('node:sum');
        const value = Number(await client.get('node:sum'));
        try {
            await client.multi().set('node:sum', value + 1).incr('node:steps').exec();
            done += 1;
        } catch (why) {
            if (!(why instanceof WatchError)) throw why; // touched: again
        }
    }
    await client.quit();
    return done;
}

async function producer() {
    const client = await connect();
    for (let number = 0; goesOn(number); number += 1) {
        await client.rPush('node:queue', String(number));
        await client.publish('node:news', String(number));
    }
    await client.rPush('node:queue', 'end');
    await client.publish('node:news', 'end');
    await client.quit();
}

async function worker() {
    const client = await connect();
    const id = await client.sendCommand(['CLIENT', 'ID']);
    for (let number = 0; ; number += 1) {
        const { element } = await client.blPop('node:queue', 0);
        if (element === 'end') break;
        assert.strictEqual(element, String(number));
    }
    assert.strictEqual(await client.sendCommand(['CLIENT', 'ID']), id);
    assert.strictEqual(await client.clientGetName(), 'node');
    await client.quit();
}

async function listener() {
    const client = await connect();
    const heard = [0, 0];
    let ended = 0;
    let done;
    const all = new Promise(resolve => { done = resolve; });
    const hear = which => message => {
        if (message === 'end') {
            ended += 1;
            if (ended === heard.length) done();
            return;
        }
        assert.strictEqual(message, String(heard[which]));
        heard[which] += 1;
    };
    await client.subscribe('node:news', hear(0));
    await client.pSubscribe('node:n*', hear(1));
    return { client, all };
}

(async () => {
    const { client, all } = await listener();
    const [one, other] = await Promise.all([transactions(), transactions(), producer(), worker(), all]);
    await client.quit();
    const last = await connect();
    assert.deepStrictEqual(await last.mGet(['node:sum', 'node:steps']), [String(one + other), String(one + other)]);
    await last.quit();
})().catch(why => { console.error(why); process.exit(1); });
