import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { dockerCredentials } from '../../../src/cli/docker-config.ts';

let home: string;

beforeEach(() => {
  home = mkdtempSync(path.join(tmpdir(), 'berth-docker-'));
});
afterEach(() => {
  rmSync(home, { recursive: true });
  vi.unstubAllEnvs();
});

const env = () => ({ HOME: home });
const find = (image: string) => dockerCredentials(image, env());
const auth = (text: string): string => Buffer.from(text).toString('base64');

function write(config: unknown): void {
  mkdirSync(path.join(home, '.docker'), { recursive: true });
  writeFileSync(path.join(home, '.docker/config.json'), JSON.stringify(config));
}

/** A credential helper that answers for one server. */
function helper(name: string, server: string, answer: object): void {
  const file = path.join(home, 'bin', `docker-credential-${name}`);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(
    file,
    `#!/bin/sh\nread -r server\n[ "$1 $server" = "get ${server}" ] && echo '${JSON.stringify(answer)}' && exit 0\necho 'credentials not found in native keychain'\nexit 1\n`,
  );
  chmodSync(file, 0o755);
  vi.stubEnv('PATH', `${path.dirname(file)}:${process.env.PATH}`);
}

describe('dockerCredentials', () => {
  it('finds none without a file, but wants one that is named', async () => {
    expect(await find('busybox')).toBeUndefined();
    await expect(dockerCredentials('busybox', env(), '/nowhere/config.json')).rejects.toThrow(
      /nowhere.config\.json/,
    );
  });

  it('takes what names most of the image', async () => {
    write({
      auths: {
        'https://index.docker.io/v1/': { auth: auth('hub:a') },
        'registry.example:5000': { auth: auth('all:b:c') },
        'registry.example:5000/team': { username: 'team', password: 'd' },
        'empty.example': {},
        'token.example': { auth: auth('x:y'), identitytoken: 'identity' },
      },
    });
    expect(await find('busybox')).toMatchObject({ username: 'hub', password: 'a' });
    expect(await find('registry.example:5000/app')).toMatchObject({ username: 'all', password: 'b:c' });
    expect(await find('registry.example:5000/team/app')).toMatchObject({ username: 'team', password: 'd' });
    expect(await find('registry.example:5000/teams/app')).toMatchObject({ username: 'all' });
    expect(await find('token.example/app')).toMatchObject({ identity_token: 'identity' });
    for (const other of ['registry.example/app', 'empty.example/app', 'xregistry.example:5000/app'])
      expect(await find(other)).toBeUndefined();
  });

  it('asks credential helpers, for a registry or for all', async () => {
    helper('one', 'registry.example', { ServerURL: '', Username: 'u', Secret: 's' });
    helper('store', 'https://index.docker.io/v1/', { Username: '<token>', Secret: 't' });
    write({
      auths: { 'https://index.docker.io/v1/': {} },
      credHelpers: { 'registry.example': 'one' },
      credsStore: 'store',
    });
    expect(await find('registry.example/app')).toEqual({ username: 'u', password: 's' });
    expect(await find('busybox')).toEqual({ username: '', password: '', identity_token: 't' });
    expect(await find('other.example/app')).toBeUndefined();
    write({ credsStore: 'absent' });
    await expect(find('busybox')).rejects.toThrow(/docker-credential-absent/);
    write({ credsStore: '../evil' });
    await expect(find('busybox')).rejects.toThrow(/no name of a credential helper/);
  });

  it('names a file that is wrong, without its secrets', async () => {
    for (const config of [
      { auths: { 'a.example': { auth: 5 } } },
      { auths: { 'a.example': { auth: auth('secret') } } },
    ]) {
      write(config);
      await expect(find('a.example/app')).rejects.toThrow(/auth/);
    }
    writeFileSync(path.join(home, '.docker/config.json'), '{"auths": secret');
    const failure = await find('a.example/app').catch(String);
    expect(failure).toMatch(/config\.json: is no JSON/);
    expect(failure).not.toMatch(/secret/);
  });
});
