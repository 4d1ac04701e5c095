import * as z from 'zod/mini';
import { BerthError } from '../../errors.ts';
import type { GuestInterface } from '../protocol/messages.ts';
import { inNetns } from './command.ts';

/** What `ip -json address show` says of an interface (iproute2). */
const links = z.array(
  z.object({
    ifname: z.string(),
    flags: z.array(z.string()),
    mtu: z.int(),
    link_type: z.string(),
    address: z.optional(z.string()),
    addr_info: z.array(
      z.object({
        family: z.string(),
        local: z.optional(z.string()),
        prefixlen: z.optional(z.int()),
        scope: z.optional(z.string()),
      }),
    ),
  }),
);

const routes = z.array(
  z.object({
    type: z.optional(z.string()),
    dst: z.string(),
    dev: z.optional(z.string()),
    gateway: z.optional(z.string()),
    protocol: z.optional(z.string()),
    scope: z.optional(z.string()),
    metric: z.optional(z.int()),
  }),
);

const neighbours = z.array(
  z.object({ dst: z.string(), dev: z.optional(z.string()), lladdr: z.optional(z.string()) }),
);

/** What four runs of `ip -json` in a network namespace answered. */
export interface IpOutput {
  addresses: string;
  routes4: string;
  routes6: string;
  neighbours: string;
}

/** An interface that a guest is to have in the place of the pod's. */
export type PodInterface = GuestInterface & { mtu: number };

/**
 * The interfaces of a pod's network namespace that CNI has made: all that are up and speak Ethernet, with
 * what a guest must be told to be the same node on the network.
 *
 * @throws BerthError
 */
export async function readInterfaces(netns: string, signal: AbortSignal): Promise<PodInterface[]> {
  const ip = (...args: string[]): Promise<string> => inNetns(netns, ['ip', '-json', ...args], signal);
  const [addresses, routes4, routes6, fixed] = await Promise.all([
    ip('address', 'show'),
    ip('-4', 'route', 'show'),
    ip('-6', 'route', 'show'),
    ip('neighbour', 'show', 'nud', 'permanent'),
  ]);
  return parseInterfaces({ addresses, routes4, routes6, neighbours: fixed });
}

/** @throws BerthError `internal` for what is no output of iproute2 */
export function parseInterfaces(output: IpOutput): PodInterface[] {
  const found = parse('address', links, output.addresses);
  const all = [
    ...parse('route', routes, output.routes4).map((route) => cidrRoute(route, '0.0.0.0/0', 32)),
    ...parse('route', routes, output.routes6).map((route) => cidrRoute(route, '::/0', 128)),
  ];
  const fixed = parse('neighbour', neighbours, output.neighbours);
  return found.flatMap(({ ifname, flags, mtu, link_type, address, addr_info }) => {
    // Tunnels that the kernel puts into every namespace are down, and have another type.
    if (link_type !== 'ether' || !flags.includes('UP') || address === undefined) return [];
    return {
      name: ifname,
      mac: address,
      mtu,
      addresses: addr_info.flatMap(({ local, prefixlen, scope }) =>
        // The guest makes the same link-local address itself, from the same MAC.
        local === undefined || scope === 'link' ? [] : `${local}/${prefixlen}`,
      ),
      routes: routesOf(ifname, all),
      neighbours: fixed.flatMap(({ dst, dev, lladdr }) =>
        dev === ifname && lladdr !== undefined ? { address: dst, mac: lladdr } : [],
      ),
    };
  });
}

type Route = z.infer<typeof routes>[number];

/** Those that a guest does not get with its addresses; ways to gateways come before what goes through them. */
function routesOf(ifname: string, all: readonly Route[]): GuestInterface['routes'] {
  const own = all.filter(
    ({ dev, type = 'unicast', protocol }) => dev === ifname && type === 'unicast' && protocol !== 'kernel',
  );
  return [
    ...own.filter(({ gateway }) => gateway === undefined),
    ...own.filter(({ gateway }) => gateway !== undefined),
  ].map(({ dst, gateway, scope, metric }) => ({
    dst,
    ...(gateway === undefined ? {} : { gateway }),
    ...(scope === undefined ? {} : { scope }),
    ...(metric === undefined ? {} : { metric }),
  }));
}

function cidrRoute(route: Route, all: string, bits: number): Route {
  if (route.dst === 'default') return { ...route, dst: all };
  return route.dst.includes('/') ? route : { ...route, dst: `${route.dst}/${bits}` };
}

function parse<T>(what: string, shape: z.ZodMiniType<T>, text: string): T {
  // Nothing at all is how iproute2 says that there are none.
  const parsed = shape.safeParse(text.trim() === '' ? [] : JSON.parse(text));
  if (parsed.success) return parsed.data;
  throw new BerthError('internal', `ip -json ${what}: ${parsed.error.message}`);
}
